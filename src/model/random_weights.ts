/**
 * Random weights as a pure function of seed, tensor name and element index: the same on every machine,
 * in any order, in any shards. An element takes about 2 ns: it is the sum of the four bytes of a hash,
 * which is close to normal (Irwin-Hall of order 4) and has only 1021 values, so encoding is a table
 * look-up.
 */
import { type DType, dtypeBytes } from "../core/dtype.ts";
import type { ModelConfig } from "./config.ts";
import { numElements, type TensorSpec } from "./structure.ts";
import { encodeFloats, type Tensor, type TensorSource } from "./tensor.ts";

const numSums = 4 * 255 + 1;
const meanSum = (numSums - 1) / 2;
/** Standard deviation of the sum of four independent uniform bytes. */
const sumDeviation = Math.sqrt(4 * (256 ** 2 - 1) / 12);

/** Weights of one tensor, normal-like with this mean and standard deviation. */
export function randomTensor(
  spec: TensorSpec,
  dtype: DType,
  seed: number,
  mean: number,
  deviation: number,
): Tensor {
  const values = Float32Array.from(
    { length: numSums },
    (_, sum) => mean + (sum - meanSum) / sumDeviation * deviation,
  );
  const bytes = new Uint8Array(numElements(spec.shape) * dtypeBytes(dtype));
  const table = encodeFloats(values, dtype);
  const start = hashName(spec.name, seed);
  if (dtype === "float32") {
    fill(new Uint32Array(bytes.buffer), new Uint32Array(table.buffer), start);
  } else {
    fill(new Uint16Array(bytes.buffer), new Uint16Array(table.buffer), start);
  }
  return { name: spec.name, dtype, shape: spec.shape, bytes };
}

function fill<T extends Uint16Array | Uint32Array>(out: T, table: T, start: number): void {
  for (let i = 0; i < out.length; i++) {
    const hash = mix(start + Math.imul(i, 0x9e3779b9));
    const pairs = (hash & 0x00ff00ff) + ((hash >>> 8) & 0x00ff00ff);
    out[i] = table[(pairs & 0xffff) + (pairs >>> 16)];
  }
}

/** Finaliser of MurmurHash3. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** FNV-1a of the name, mixed with the seed. */
function hashName(name: string, seed: number): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
  return mix(h ^ mix(seed | 0) ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b));
}

/**
 * Random weights of a whole model. Scales keep activations near 1 through the layers, and make logits
 * spread enough (deviation about 3) that greedy outputs vary and small errors rarely change them.
 */
export class RandomWeights implements TensorSource {
  readonly description: string;
  readonly #config: ModelConfig;
  readonly #dtype: DType;
  readonly #seed: number;

  constructor(config: ModelConfig, dtype: DType, seed: number) {
    this.description = `random weights (seed ${seed})`;
    this.#config = config;
    this.#dtype = dtype;
    this.#seed = seed;
  }

  check(_spec: TensorSpec): void {}

  read(spec: TensorSpec): Tensor {
    const [mean, deviation] = this.#distribution(spec);
    return randomTensor(spec, this.#dtype, this.#seed, mean, deviation);
  }

  close(): void {}

  #distribution({ name, shape }: TensorSpec): [mean: number, deviation: number] {
    // Signs must vary, or a tied model would repeat its last token for ever.
    if (name === "model.norm.weight") return [0, 1];
    if (name.endsWith("norm.weight")) return [1, 0.1];
    if (name.endsWith(".bias")) return [0, 0.2];
    if (name === "model.embed_tokens.weight" || name === "lm_head.weight") {
      return [0, 3 / Math.sqrt(this.#config.hiddenSize)];
    }
    // The layers must add as much as the embedding, or the context would not matter.
    const gain = /\.(o_proj|down_proj)\./.test(name) ? 2 : 1;
    return [0, gain / Math.sqrt(shape[1])];
  }
}

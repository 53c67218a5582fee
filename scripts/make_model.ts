/**
 * Writes a model directory in Hugging Face layout with seeded random weights and the byte-level
 * tokenizer, for tests and benchmarks. The weights are the same on every machine.
 *
 *     deno run -A scripts/make_model.ts --out DIR --family qwen2 --size tiny --dtype bf16 --seed 1
 */
import { rmSync } from "node:fs";
import { parseArgs } from "node:util";
import { type DType, dtypeBytes } from "../src/core/dtype.ts";
import {
  byteGenerationConfig,
  byteSpecialTokens,
  byteTokenizerConfig,
  byteTokenizerJson,
  byteVocabSize,
} from "../src/model/byte_tokenizer.ts";
import { parseModelConfig } from "../src/model/config.ts";
import { RandomWeights } from "../src/model/random_weights.ts";
import { allTensors, decoderSpec, numElements, type TensorSpec } from "../src/model/structure.ts";

const families = ["llama", "llama3", "mistral", "qwen2", "qwen3"] as const;
const sizes = {
  tiny: { hidden: 64, layers: 2, heads: 4, kvHeads: 2, intermediate: 160, vocab: 320 },
  "135m": { hidden: 576, layers: 30, heads: 9, kvHeads: 3, intermediate: 1536, vocab: 49152 },
  "0.5b": { hidden: 896, layers: 24, heads: 14, kvHeads: 2, intermediate: 4864, vocab: 151936 },
} as const;
const dtypes = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;
const storedTypes = { float32: "F32", float16: "F16", bfloat16: "BF16" } as const;

/** The model to make. */
export interface MakeModelOptions {
  readonly out: string;
  readonly family: typeof families[number];
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly vocab: number;
  readonly maxPositions: number;
  readonly tied: boolean;
  readonly dtype: DType;
  readonly seed: number;
  /** Number of safetensors files; several files also get an index. */
  readonly shards: number;
}

const usage = `Usage: make_model.ts --out DIR [--family ${families.join("|")}]
  [--size ${Object.keys(sizes).join("|")}] [--dtype f32|f16|bf16] [--seed N] [--shards K]
  [--tied | --no-tied] [--hidden N] [--layers N] [--heads N] [--kv-heads N] [--head-dim N]
  [--intermediate N] [--vocab N] [--max-positions N]
The sizes 135m and 0.5b have tied embeddings, tiny has not.`;

/** Reads a command line. @throws {Error} an argument is unknown; the message has the usage */
export function parseMakeModelArgs(args: string[]): MakeModelOptions {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args,
    allowNegative: true,
    options: {
      out: text,
      family: { ...text, default: "llama" },
      size: { ...text, default: "tiny" },
      dtype: { ...text, default: "f32" },
      seed: text,
      shards: text,
      tied: { type: "boolean" },
      hidden: text,
      layers: text,
      heads: text,
      "kv-heads": text,
      "head-dim": text,
      intermediate: text,
      vocab: text,
      "max-positions": text,
    },
  });
  const count = (value: string | undefined, otherwise: number): number => {
    const number = value === undefined ? otherwise : Number(value);
    if (Number.isSafeInteger(number) && number >= 0) return number;
    throw new Error(`${value}: expected an integer of 1 or more.\n${usage}`);
  };
  const choice = <T extends string>(value: string, choices: readonly T[]): T => {
    const found = choices.find((known) => known === value);
    if (found) return found;
    throw new Error(`${value}: expected one of ${choices.join(", ")}.\n${usage}`);
  };
  if (!values.out) throw new Error(`--out is missing.\n${usage}`);
  const sizeName = choice(values.size, Object.keys(sizes) as (keyof typeof sizes)[]);
  const size = sizes[sizeName];
  const hidden = count(values.hidden, size.hidden);
  const heads = count(values.heads, size.heads);
  const dtypeName = choice(values.dtype, Object.keys(dtypes) as (keyof typeof dtypes)[]);
  return {
    out: values.out,
    family: choice(values.family, families),
    hidden,
    layers: count(values.layers, size.layers),
    heads,
    kvHeads: count(values["kv-heads"], size.kvHeads),
    headDim: count(values["head-dim"], hidden / heads),
    intermediate: count(values.intermediate, size.intermediate),
    vocab: count(values.vocab, size.vocab),
    maxPositions: count(values["max-positions"], 8192),
    tied: values.tied ?? sizeName !== "tiny",
    dtype: dtypes[dtypeName],
    seed: count(values.seed, 0),
    shards: count(values.shards, 1),
  };
}

/** Writes the directory; existing files in it are replaced. */
export function makeModel(options: MakeModelOptions): void {
  if (options.vocab < byteVocabSize) {
    throw new Error(
      `--vocab: expected at least ${byteVocabSize}, the tokens of the byte tokenizer`,
    );
  }
  const { out } = options;
  Deno.mkdirSync(out, { recursive: true });
  const writeJson = (name: string, value: unknown) =>
    Deno.writeTextFileSync(`${out}/${name}`, JSON.stringify(value, null, 2) + "\n");
  const config = configJson(options);
  writeJson("config.json", config);
  writeJson("generation_config.json", byteGenerationConfig());
  writeJson("tokenizer.json", byteTokenizerJson());
  writeJson("tokenizer_config.json", byteTokenizerConfig(options.maxPositions));

  const parsed = parseModelConfig(config, "config.json");
  const weights = new RandomWeights(parsed, options.dtype, options.seed);
  const shards = cut(allTensors(decoderSpec(parsed)), options.shards);
  if (shards.length === 1) {
    writeShard(`${out}/model.safetensors`, shards[0], weights, options.dtype);
    return;
  }
  rmSync(`${out}/model.safetensors`, { force: true }); // loaders would prefer it to the shards
  const weightMap: Record<string, string> = {};
  shards.forEach((tensors, i) => {
    const name = `model-${fiveDigits(i + 1)}-of-${fiveDigits(shards.length)}.safetensors`;
    writeShard(`${out}/${name}`, tensors, weights, options.dtype);
    for (const tensor of tensors) weightMap[tensor.name] = name;
  });
  const totalSize = shards.flat().reduce((sum, spec) => sum + storedBytes(spec, options.dtype), 0);
  const metadata = { total_size: totalSize };
  writeJson("model.safetensors.index.json", { metadata, weight_map: weightMap });
}

const architectures = {
  llama: { architectures: ["LlamaForCausalLM"], model_type: "llama", rope_theta: 10000 },
  llama3: {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    rope_theta: 500000,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
  },
  mistral: {
    architectures: ["MistralForCausalLM"],
    model_type: "mistral",
    rope_theta: 10000,
    sliding_window: null,
  },
  qwen2: {
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    rope_theta: 1000000,
    use_sliding_window: false,
  },
  qwen3: {
    architectures: ["Qwen3ForCausalLM"],
    model_type: "qwen3",
    rope_theta: 1000000,
    attention_bias: false,
  },
} as const;

function configJson(options: MakeModelOptions): Record<string, unknown> {
  const { bos, eos, pad, imEnd } = byteSpecialTokens;
  return {
    ...architectures[options.family],
    vocab_size: options.vocab,
    hidden_size: options.hidden,
    intermediate_size: options.intermediate,
    num_hidden_layers: options.layers,
    num_attention_heads: options.heads,
    num_key_value_heads: options.kvHeads,
    head_dim: options.headDim,
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    max_position_embeddings: options.maxPositions,
    tie_word_embeddings: options.tied,
    bos_token_id: bos.id,
    eos_token_id: [eos.id, imEnd.id],
    pad_token_id: pad.id,
    torch_dtype: options.dtype,
  };
}

function fiveDigits(n: number): string {
  return String(n).padStart(5, "0");
}

function storedBytes(spec: TensorSpec, dtype: DType): number {
  return numElements(spec.shape) * dtypeBytes(dtype);
}

/** Divides the tensors into `count` runs of about equal length. */
function cut(tensors: readonly TensorSpec[], count: number): TensorSpec[][] {
  const bound = (i: number) => Math.round(i * tensors.length / count);
  return Array.from({ length: count }, (_, i) => tensors.slice(bound(i), bound(i + 1)));
}

function writeShard(
  path: string,
  tensors: readonly TensorSpec[],
  weights: RandomWeights,
  dtype: DType,
): void {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const spec of tensors) {
    const end = offset + storedBytes(spec, dtype);
    header[spec.name] = {
      dtype: storedTypes[dtype],
      shape: spec.shape,
      data_offsets: [offset, end],
    };
    offset = end;
  }
  const text = JSON.stringify(header);
  // The format pads the header with spaces so that the data is aligned to 8 bytes.
  const headerBytes = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  writeAll(file, new Uint8Array(new BigUint64Array([BigInt(headerBytes.length)]).buffer));
  writeAll(file, headerBytes);
  for (const spec of tensors) writeAll(file, weights.read(spec).bytes);
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

if (import.meta.main) {
  if (Deno.args.some((arg) => arg === "--help" || arg === "-h")) {
    console.log(usage);
    Deno.exit(0);
  }
  let options: MakeModelOptions;
  try {
    options = parseMakeModelArgs(Deno.args);
  } catch (error) {
    const { message } = error as Error;
    console.error(message.includes(usage) ? message : `${message}\n${usage}`);
    Deno.exit(2);
  }
  const startedMs = performance.now();
  makeModel(options);
  const seconds = (performance.now() - startedMs) / 1000;
  console.log(`${options.out}: ${options.family}, ${options.dtype}, ${seconds.toFixed(1)} s`);
}

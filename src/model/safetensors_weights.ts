import { ModelError } from "../core/errors.ts";
import { missingTensor, type OpenFile, SafetensorsFile } from "./safetensors.ts";
import { nanCodes, widenScaled } from "./fp8.ts";
import { numElements, type TensorSpec } from "./structure.ts";
import { type ScaledTensor, type Tensor, type TensorSource, tensorValues } from "./tensor.ts";

const singleFile = "model.safetensors";
const indexFile = "model.safetensors.index.json";

/**
 * The safetensors weights of a model directory: `model.safetensors`, else the shards that
 * `model.safetensors.index.json` lists (transformers' order, modeling_utils.py).
 */
export class SafetensorsWeights implements TensorSource {
  readonly description: string;
  readonly #directory: string;
  readonly #files = new Map<string, SafetensorsFile>();
  /** File that holds each tensor. */
  readonly #index = new Map<string, SafetensorsFile>();

  /** @throws {ModelError} no weights, only other formats, a shard missing or corrupt */
  constructor(directory: string, open: OpenFile) {
    this.#directory = directory;
    try {
      if (exists(`${directory}/${singleFile}`)) {
        const file = this.#openFile(singleFile, open);
        for (const name of file.names) this.#index.set(name, file);
      } else if (exists(`${directory}/${indexFile}`)) this.#openShards(open);
      else throw noSafetensors(directory);
    } catch (error) {
      this.close();
      throw error;
    }
    const count = this.#files.size;
    this.description = `${count} safetensors file${count === 1 ? "" : "s"}`;
  }

  check(spec: TensorSpec): void {
    const file = this.#fileOf(spec);
    if (file.isNarrow(spec.name)) this.#scalesOf(spec);
    else file.check(spec);
  }

  read(spec: TensorSpec): Tensor {
    const scaled = this.readScaled(spec);
    return scaled === null ? this.#fileOf(spec).read(spec) : widenScaled(spec, scaled);
  }

  readScaled(spec: TensorSpec): ScaledTensor | null {
    const file = this.#fileOf(spec);
    if (!file.isNarrow(spec.name)) return null;
    const codes = file.readNarrow(spec), scales = this.#scalesOf(spec);
    if (nanCodes.some((code) => codes.includes(code))) {
      throw new ModelError(
        `Tensor ${spec.name} in ${file.path} has weights that are NaN. Its file is damaged; ` +
          "download it again.",
      );
    }
    return { codes, scales };
  }

  /** The scales of a matrix in 8 bits, which stand beside it: one, or one for each row. */
  #scalesOf({ name, shape: [rows] }: TensorSpec): Float32Array<ArrayBuffer> {
    const scaleName = name.replace(/\.weight$/, ".weight_scale");
    const file = this.#index.get(scaleName), shape = file?.shapeOf(scaleName) ?? null;
    if (file === undefined || shape === null) {
      throw new ModelError(
        `Tensor ${name} in ${this.#directory} is stored in 8 bits without its scale: expected ` +
          `${scaleName}. Use a checkpoint with scales, or the model's weights in 16 bits.`,
      );
    }
    const count = numElements(shape);
    if (count !== 1 && (count !== rows || shape[0] !== rows)) {
      throw new ModelError(
        `Tensor ${scaleName} in ${file.path} has shape [${
          shape.join(", ")
        }]; expected one scale, or ` +
          `${rows}, one for each output.`,
      );
    }
    const values = tensorValues(file.read({ name: scaleName, shape }), "float32");
    if (!values.every((scale) => scale > 0 && scale < Infinity)) {
      throw new ModelError(
        `Tensor ${scaleName} in ${file.path} has scales that are not positive numbers. Its file is ` +
          "damaged; download it again.",
      );
    }
    return Float32Array.from({ length: rows }, (_, row) => values[count === 1 ? 0 : row]);
  }

  close(): void {
    for (const file of this.#files.values()) file.close();
    this.#files.clear();
    this.#index.clear();
  }

  #fileOf(spec: TensorSpec): SafetensorsFile {
    const file = this.#index.get(spec.name);
    if (!file) throw missingTensor(spec, this.#directory);
    return file;
  }

  #openFile(name: string, open: OpenFile): SafetensorsFile {
    const file = new SafetensorsFile(`${this.#directory}/${name}`, open);
    this.#files.set(name, file);
    return file;
  }

  #openShards(open: OpenFile): void {
    const path = `${this.#directory}/${indexFile}`;
    for (const [tensor, shard] of Object.entries(readWeightMap(path))) {
      if (!this.#files.has(shard) && !exists(`${this.#directory}/${shard}`)) {
        throw new ModelError(
          `${path} lists ${shard}, which is missing. The download is incomplete; fetch it again.`,
        );
      }
      this.#index.set(tensor, this.#files.get(shard) ?? this.#openFile(shard, open));
    }
  }
}

function readWeightMap(path: string): Record<string, string> {
  let map: unknown;
  try {
    map = JSON.parse(Deno.readTextFileSync(path))?.weight_map;
  } catch (error) {
    throw new ModelError(`${path} is not JSON: ${(error as Error).message}.`);
  }
  const isFileName = (name: unknown) => typeof name === "string" && /^[^/\\]+$/.test(name);
  if (typeof map !== "object" || map === null || !Object.values(map).every(isFileName)) {
    throw new ModelError(`${path} has no valid "weight_map" from tensor to file name.`);
  }
  return map as Record<string, string>;
}

function noSafetensors(directory: string): ModelError {
  const names = [...Deno.readDirSync(directory)].map((entry) => entry.name);
  const pickled = names.filter((name) => /\.(bin|pth|pt)$/.test(name)).sort();
  if (pickled.length > 0) {
    return new ModelError(
      `${directory} has its weights only in PyTorch's pickle format (${
        pickled[0]
      }), which can run ` +
        `code when it is read and is not supported. Convert them to safetensors: load the model ` +
        `with transformers and call save_pretrained(directory, safe_serialization=True).`,
    );
  }
  return new ModelError(
    `${directory} has no weights: expected ${singleFile}, or ${indexFile} and its shards. ` +
      `To try a config without weights use --load-format dummy.`,
  );
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * Reader of the safetensors format (https://huggingface.co/docs/safetensors): a little-endian u64
 * header length, a JSON header, then the tensors' bytes.
 */
import { type DType, dtypeBytes } from "../core/dtype.ts";
import { ModelError } from "../core/errors.ts";
import { numElements, type TensorSpec } from "./structure.ts";
import { expectShape, type Tensor } from "./tensor.ts";

/** An open file that gives ranges as bytes: a mapped file, or one that is read on demand. */
export interface FileBytes {
  readonly byteLength: number;
  /** A range of the file. It may be a view of a mapped file; it is valid until `close`. */
  slice(offset: number, byteLength: number): Uint8Array;
  close(): void;
}

/** Opens a file. @throws {Deno.errors.NotFound} and other errors of the system */
export type OpenFile = (path: string) => FileBytes;

/** Opens a file that cannot be mapped: each range is read into memory. */
export function openByReading(path: string): FileBytes {
  const file = Deno.openSync(path);
  return {
    byteLength: file.statSync().size,
    slice(offset, byteLength) {
      const bytes = new Uint8Array(byteLength);
      file.seekSync(offset, Deno.SeekMode.Start);
      for (let done = 0; done < byteLength;) {
        const count = file.readSync(bytes.subarray(done));
        if (count === null) throw new ModelError(`${path} became shorter while it was read.`);
        done += count;
      }
      return bytes;
    },
    close: () => file.close(),
  };
}

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Offset in the file. */
  readonly start: number;
  readonly byteLength: number;
}

/** The format's own limit on headers. */
const maxHeaderBytes = 100_000_000;

const narrow = "F8_E4M3";

const dtypes: Readonly<Record<string, DType>> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

/** One safetensors file. */
export class SafetensorsFile {
  readonly path: string;
  readonly #file: FileBytes;
  readonly #entries: ReadonlyMap<string, Entry>;

  /** @throws {ModelError} the file cannot be read, is truncated, or its header is corrupt */
  constructor(path: string, open: OpenFile) {
    this.path = path;
    try {
      this.#file = open(path);
    } catch (error) {
      throw new ModelError(`Cannot read ${path}: ${(error as Error).message}.`, { cause: error });
    }
    try {
      this.#entries = readHeader(path, this.#file);
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** Throws a ModelError unless the tensor is there in this shape and in a supported type. */
  check(spec: TensorSpec): void {
    this.#find(spec);
  }

  /** Whether the tensor is stored in 8 bits (e4m3), which {@linkcode read} does not take. */
  isNarrow(name: string): boolean {
    return this.#entries.get(name)?.dtype === narrow;
  }

  /** The bytes of a tensor in 8 bits. @throws {ModelError} as `check` */
  readNarrow(spec: TensorSpec): Uint8Array {
    const entry = this.#entries.get(spec.name)!;
    expectShape(spec, entry.shape, this.path);
    return this.#file.slice(entry.start, entry.byteLength);
  }

  /** The shape of a tensor; null if it is not there. */
  shapeOf(name: string): readonly number[] | null {
    return this.#entries.get(name)?.shape ?? null;
  }

  /** @throws {ModelError} as `check` */
  read(spec: TensorSpec): Tensor {
    const { dtype, entry } = this.#find(spec);
    let bytes = this.#file.slice(entry.start, entry.byteLength);
    // The format does not promise alignment; typed arrays and the kernels need it.
    if (entry.start % dtypeBytes(dtype) !== 0) bytes = bytes.slice();
    return { name: spec.name, dtype, shape: entry.shape, bytes };
  }

  close(): void {
    this.#file.close();
  }

  #find(spec: TensorSpec): { dtype: DType; entry: Entry } {
    const entry = this.#entries.get(spec.name);
    if (!entry) throw missingTensor(spec, this.path);
    expectShape(spec, entry.shape, this.path);
    const dtype = dtypes[entry.dtype];
    if (!dtype) {
      throw new ModelError(
        `Tensor ${spec.name} in ${this.path} has type ${entry.dtype}. Supported: ` +
          `${Object.keys(dtypes).join(", ")}.`,
      );
    }
    return { dtype, entry };
  }
}

/** The error for a missing tensor. */
export function missingTensor(spec: TensorSpec, where: string): ModelError {
  return new ModelError(
    `Tensor ${spec.name} [${spec.shape.join(", ")}] is missing in ${where}. ` +
      `The weights and config.json are not of the same model, or the download is incomplete.`,
  );
}

function readHeader(path: string, file: FileBytes): Map<string, Entry> {
  const corrupt = (what: string) =>
    new ModelError(
      `${path} is not a valid safetensors file: ${what}. It is truncated or corrupt; download it ` +
        `again.`,
    );
  if (file.byteLength < 8) throw corrupt(`${file.byteLength} bytes are too few`);
  const head = file.slice(0, 8);
  const headerBytes = Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0, true));
  if (headerBytes > maxHeaderBytes || 8 + headerBytes > file.byteLength) {
    throw corrupt(
      `its header of ${headerBytes} bytes exceeds the file of ${file.byteLength} bytes`,
    );
  }
  let header: unknown;
  try {
    // A copy: TextDecoder refuses views of some mapped memory.
    const text = new TextDecoder("utf-8", { fatal: true });
    header = JSON.parse(text.decode(file.slice(8, headerBytes).slice()));
  } catch (error) {
    throw corrupt(`its header is not JSON (${(error as Error).message})`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw corrupt("its header is not a JSON object");
  }
  const entries = new Map<string, Entry>();
  const dataStart = 8 + headerBytes;
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    entries.set(name, parseEntry(name, value, dataStart, file.byteLength, corrupt));
  }
  refuseOverlaps(entries, corrupt);
  return entries;
}

/** Bytes an element of each type of the format; types not listed are not checked for size. */
const elementBytes: Readonly<Record<string, number>> = {
  ...{ F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 },
  ...{ I8: 1, U8: 1, BOOL: 1, F8_E4M3: 1, F8_E5M2: 1 },
};

function parseEntry(
  name: string,
  value: unknown,
  dataStart: number,
  fileBytes: number,
  corrupt: (what: string) => ModelError,
): Entry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (typeof dtype !== "string" || !Array.isArray(shape) || !shape.every(isCount)) {
    throw corrupt(`tensor ${name} has no valid dtype and shape`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw corrupt(`tensor ${name} has no valid data_offsets`);
  }
  const [begin, end] = offsets;
  if (begin > end || dataStart + end > fileBytes) {
    throw corrupt(
      `tensor ${name} lies at bytes ${begin} to ${end} of ${fileBytes - dataStart} bytes of data`,
    );
  }
  const size = elementBytes[dtype];
  if (size !== undefined && numElements(shape) * size !== end - begin) {
    throw corrupt(
      `tensor ${name}, ${dtype} [${shape.join(", ")}], needs ${numElements(shape) * size} bytes ` +
        `and has ${end - begin}`,
    );
  }
  return { dtype, shape, start: dataStart + begin, byteLength: end - begin };
}

function refuseOverlaps(
  entries: ReadonlyMap<string, Entry>,
  corrupt: (what: string) => ModelError,
): void {
  const sorted = [...entries].sort(([, a], [, b]) => a.start - b.start);
  for (let i = 1; i < sorted.length; i++) {
    const [name, entry] = sorted[i - 1];
    if (entry.start + entry.byteLength > sorted[i][1].start) {
      throw corrupt(`tensors ${name} and ${sorted[i][0]} overlap`);
    }
  }
}

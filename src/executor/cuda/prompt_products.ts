/** Which rows of a step cuBLASLt computes, and whether it may. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { CublasError } from "../../../ffi/cublaslt/cublaslt.ts";
import {
  type DecoderKernels,
  elementBytes,
  type LinearLayer,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import {
  LibraryLinear,
  libraryWorkspaceBytes,
  type RowRange,
} from "../../../ffi/cuda_kernels/library_linear.ts";
import { LibraryNotFoundError, type OpenOptions } from "../../../ffi/library.ts";
import { addressOf, nativeBuffer } from "../../../ffi/memory.ts";
import type { DType } from "../../core/dtype.ts";
import { Random } from "../../core/random.ts";
import { encodeFloats } from "../../model/tensor.ts";
import type { StepInput } from "../executor.ts";
import type { Slice } from "../transformer/slices.ts";
import { DeviceMemory } from "./device_memory.ts";
import type { CudaLayer } from "./weights.ts";

/**
 * Rows of a product by cuBLASLt. More rows keep a large device busier; fewer rows are wasted at the edges of
 * steps. To be chosen by measurements.
 */
export const PROMPT_TILE_ROWS = 512;

/** Largest difference of a row from that of the own kernels, the norm of it over the norm of the row. */
const MOST_ERROR = 1e-4;

/**
 * Rows that cuBLASLt computes: the tokens of a prompt up to the last multiple of `tileRows`. That depends on
 * the request alone. Tokens after them, and tokens of the output that are computed again, are the own kernels'.
 */
export class PromptProducts {
  readonly #tileRows: number;
  /** Tokens of the prompt, by handle. */
  readonly #promptLengths = new Map<number, number>();

  constructor(readonly library: LibraryLinear) {
    this.#tileRows = library.tileRows;
  }

  /** Rows of a slice, counted from its first; ascending, and apart from each other. */
  rowsOf(input: StepInput, slice: Slice): RowRange[] {
    for (const handle of input.removed) this.#promptLengths.delete(handle);
    for (const { handle, promptTokenIds } of input.added) {
      this.#promptLengths.set(handle, promptTokenIds.length);
    }
    const ranges: RowRange[] = [];
    for (const { index, firstRow, numRows, contextLen } of slice) {
      const promptLength = this.#promptLengths.get(input.handles[index]) ?? 0;
      const end = promptLength - promptLength % this.#tileRows;
      const count = Math.min(numRows, end - (contextLen - numRows));
      if (count <= 0) continue;
      const first = firstRow - slice[0].firstRow, before = ranges.at(-1);
      if (before !== undefined && before.first + before.count === first) {
        ranges[ranges.length - 1] = { first: before.first, count: before.count + count };
      } else {
        ranges.push({ first, count });
      }
    }
    return ranges;
  }
}

export interface PromptProductsArgs {
  readonly cuda: Cuda;
  readonly stream: bigint;
  readonly memory: DeviceMemory;
  readonly kernels: DecoderKernels;
  readonly dtype: DType;
  /** Any layer of the model: all have the same shapes. */
  readonly layer: CudaLayer;
  readonly tileRows: number;
  readonly libraries: OpenOptions;
}

/**
 * Opens cuBLASLt and tries it on a layer of the model. The kernels use it from then on.
 * @returns why it cannot be used, in a sentence, if it cannot
 * @throws {UsageError} the device has too little memory
 */
export function openPromptProducts(args: PromptProductsArgs): PromptProducts | string {
  const { memory, kernels, dtype, layer, tileRows, libraries, stream } = args;
  const layers = [layer.qkv, layer.output, layer.gateUp, layer.down];
  const take = (byteLength: number) =>
    memory.allocate(byteLength, "room for cuBLASLt", "Use --cuda-prompt-gemm own.");
  const sumsBytes = tileRows * Math.max(layer.output.outputs, layer.down.outputs) * 4;
  let library: LibraryLinear;
  try {
    const room = { workspace: take(libraryWorkspaceBytes), sums: take(sumsBytes) };
    library = new LibraryLinear(tileRows, dtype, layers, room, stream, libraries);
  } catch (error) {
    if (!(error instanceof CublasError || error instanceof LibraryNotFoundError)) throw error;
    return error.message;
  }
  kernels.useLibrary(library);
  for (const layer of layers) {
    const complaint = complaintOf(args, library, layer);
    if (complaint !== null) return complaint;
  }
  return new PromptProducts(library);
}

/** Computes equal rows: they must be alike to the bit, and like the own kernels' but for rounding. */
function complaintOf(
  { cuda, stream, kernels, dtype, tileRows }: PromptProductsArgs,
  library: LibraryLinear,
  layer: LinearLayer,
): string | null {
  const { inputs, outputs } = layer;
  const random = new Random(1);
  const row = Float32Array.from({ length: inputs }, () => random.below(1 << 20) / (1 << 19) - 1);
  const rowBytes = encodeFloats(row, dtype);
  const host = nativeBuffer(tileRows * inputs * elementBytes[dtype]);
  for (let i = 0; i < tileRows; i++) host.set(rowBytes, i * rowBytes.length);
  const found = nativeBuffer(tileRows * outputs * 4), own = nativeBuffer(outputs * 4);
  const memory = new DeviceMemory(cuda);
  try {
    const take = (byteLength: number) =>
      memory.allocate(byteLength, "room for a test of cuBLASLt", "Use --cuda-prompt-gemm own.");
    const x = take(host.length), y = take(found.length);
    cuda.copy(x, addressOf(host), host.length, stream);
    kernels.computeByLibrary([{ first: 0, count: tileRows }]);
    kernels.linear(layer, x, y, tileRows, "set");
    cuda.copy(addressOf(found), y, found.length, stream);
    kernels.computeByLibrary([]);
    kernels.linear(layer, x, y, 1, "set");
    cuda.copy(addressOf(own), y, own.length, stream);
    cuda.synchronizeStream(stream);
  } finally {
    memory.free();
  }
  const bits = new Uint32Array(found.buffer);
  const shape = `a layer of ${inputs} inputs and ${outputs} outputs`;
  for (let i = outputs; i < bits.length; i++) {
    if (bits[i] === bits[i % outputs]) continue;
    return `${library.path} gives equal rows of ${shape} different results`;
  }
  const values = new Float32Array(found.buffer, 0, outputs), truth = new Float32Array(own.buffer);
  let difference = 0, norm = 0;
  truth.forEach((value, i) => {
    difference += (values[i] - value) ** 2;
    norm += value ** 2;
  });
  return difference <= norm * MOST_ERROR ** 2
    ? null
    : `${library.path} gives wrong results for ${shape}`;
}

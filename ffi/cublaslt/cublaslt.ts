/**
 * cuBLASLt for linear layers: Y = X W^T with row-major matrices, as model files have them.
 *
 * A product is planned once for its shape and then run often: planning asks the library for its
 * fastest algorithm.
 */
import { type Library, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { textAt } from "../memory.ts";
import { cublasLtSymbols } from "./symbols.ts";

type Symbols = Library<typeof cublasLtSymbols>["symbols"];

/** A failed call of cuBLASLt. */
export class CublasError extends Error {
  override readonly name = "CublasError";
  constructor(
    readonly call: string,
    /** `cublasStatus_t`. */
    readonly status: number,
    readonly statusName: string,
    readonly text: string,
  ) {
    super(`${call}: ${text} (${statusName}, ${status})`);
  }
}

/** Constants of library_types.h, cublas_api.h and cublasLt.h, by their names in C. */
export const cublasConstants = {
  CUDA_R_32F: 0,
  CUDA_R_16F: 2,
  CUDA_R_16BF: 14,
  CUBLAS_COMPUTE_32F: 68,
  CUBLAS_OP_N: 0,
  CUBLAS_OP_T: 1,
  CUBLASLT_MATMUL_DESC_TRANSA: 3,
  CUBLASLT_MATMUL_DESC_EPILOGUE: 7,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER: 8,
  CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: 26,
  CUBLASLT_EPILOGUE_BIAS: 4,
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: 1,
  CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: 3,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: 8,
  CUBLASLT_REDUCTION_SCHEME_NONE: 0,
} as const;

/** `cublasLtMatmulHeuristicResult_t`: the algorithm at 0, then what it needs. */
export const heuristicLayout = { byteLength: 96, workspaceSize: 64, state: 72 } as const;
const algorithmBytes = 64;

const typeCodes = {
  float32: cublasConstants.CUDA_R_32F,
  float16: cublasConstants.CUDA_R_16F,
  bfloat16: cublasConstants.CUDA_R_16BF,
} as const;

export type ElementType = keyof typeof typeCodes;

/** Shapes and types of Y[rows, outputs] = X[rows, inputs] W[outputs, inputs]^T. */
export interface LinearShape {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Of X and W. */
  readonly type: ElementType;
  /** Of Y. Sums are always in float32. */
  readonly outputType: ElementType;
  /** Address of a bias [outputs] of `outputType` that is added to each row. */
  readonly bias?: bigint;
  /** Memory that `run` may use; the library's usual advice is 32 MiB. */
  readonly workspaceBytes: number;
  /** Of the addresses of X, W and Y. Default 256, the library's. */
  readonly alignmentBytes?: number;
}

/** Addresses of one product, on the device. */
export interface LinearOperands {
  readonly x: bigint;
  readonly weights: bigint;
  readonly y: bigint;
  /** Room for the shape's `workspaceBytes`, not shared with another stream. */
  readonly workspace: bigint;
  readonly stream: bigint;
}

/** cuBLASLt on the current device of the calling thread. */
export class CublasLt {
  readonly #library: Library<typeof cublasLtSymbols>;
  readonly #check: Check;
  readonly #handle: bigint;
  /** As the library codes it: 130200 is 13.2.0. */
  readonly version: number;

  /** @throws {LibraryNotFoundError} {@link CublasError} if there is no device */
  static open(options: OpenOptions = {}): CublasLt {
    return new CublasLt(openLibrary(libraries.cublasLt, cublasLtSymbols, options));
  }

  private constructor(library: Library<typeof cublasLtSymbols>) {
    this.#library = library;
    this.version = Number(library.symbols.cublasLtGetVersion());
    this.#check = checkOf(library.symbols);
    const handle = new BigUint64Array(1);
    this.#check("cublasLtCreate", library.symbols.cublasLtCreate(handle));
    this.#handle = handle[0];
  }

  /** Where the library is, and whether it is the software device's. */
  get library(): Pick<Library<typeof cublasLtSymbols>, "name" | "path" | "softwareDevice"> {
    return this.#library;
  }

  /**
   * Asks the library for an algorithm without split-K: one that adds up each output in one piece.
   * @throws {CublasError} if the library has no algorithm for the shape
   */
  planLinear(shape: LinearShape): LinearPlan {
    return new LinearPlan(this.#library.symbols, this.#check, this.#handle, shape);
  }

  /** Ends the library's handle, after the plans. */
  close(): void {
    this.#check("cublasLtDestroy", this.#library.symbols.cublasLtDestroy(this.#handle));
  }
}

/** A product of one shape with the algorithm for it. */
export class LinearPlan {
  readonly #call: Symbols;
  readonly #check: Check;
  readonly #handle: bigint;
  readonly #description: bigint;
  readonly #weights: bigint;
  readonly #x: bigint;
  readonly #y: bigint;
  /** `cublasLtMatmulAlgo_t`, which stays the same for all runs of the plan. */
  readonly algorithm: Uint8Array<ArrayBuffer>;
  readonly #one = new Float32Array([1]);
  readonly #zero = new Float32Array([0]);
  /** What the algorithm uses of the workspace. */
  readonly workspaceBytes: number;

  /** @ignore Made by `CublasLt.planLinear`. */
  constructor(call: Symbols, check: Check, handle: bigint, shape: LinearShape) {
    this.#call = call;
    this.#check = check;
    this.#handle = handle;
    this.#description = this.#describe(shape);
    const { rows, inputs, outputs, type, outputType } = shape;
    // The library counts by columns: a row-major [a, b] is its [b, a].
    this.#weights = this.#layout(type, inputs, outputs);
    this.#x = this.#layout(type, inputs, rows);
    this.#y = this.#layout(outputType, outputs, rows);
    let best: Uint8Array<ArrayBuffer>;
    try {
      best = this.#bestAlgorithm(shape);
    } catch (error) {
      this.destroy();
      throw error;
    }
    this.algorithm = best.slice(0, algorithmBytes);
    const size = new DataView(best.buffer).getBigUint64(heuristicLayout.workspaceSize, true);
    this.workspaceBytes = Number(size);
  }

  /** Enqueues the product. */
  run({ x, weights, y, workspace, stream }: LinearOperands): void {
    const code = this.#call.cublasLtMatmul(
      this.#handle,
      this.#description,
      this.#one,
      ...[weights, this.#weights, x, this.#x] as const,
      this.#zero,
      ...[y, this.#y, y, this.#y] as const,
      this.algorithm,
      workspace,
      BigInt(this.workspaceBytes),
      stream,
    );
    this.#check("cublasLtMatmul", code);
  }

  destroy(): void {
    const { cublasLtMatrixLayoutDestroy, cublasLtMatmulDescDestroy } = this.#call;
    for (const layout of [this.#weights, this.#x, this.#y]) {
      this.#check("cublasLtMatrixLayoutDestroy", cublasLtMatrixLayoutDestroy(layout));
    }
    this.#check("cublasLtMatmulDescDestroy", cublasLtMatmulDescDestroy(this.#description));
  }

  #describe({ bias, outputType }: LinearShape): bigint {
    const created = new BigUint64Array(1);
    const { CUBLAS_COMPUTE_32F, CUDA_R_32F } = cublasConstants;
    const code = this.#call.cublasLtMatmulDescCreate(created, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    this.#check("cublasLtMatmulDescCreate", code);
    const set = (
      attribute: number,
      value: Int32Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>,
    ) => {
      const { cublasLtMatmulDescSetAttribute } = this.#call;
      const size = BigInt(value.byteLength);
      const code = cublasLtMatmulDescSetAttribute(created[0], attribute, value, size);
      this.#check(`cublasLtMatmulDescSetAttribute(${attribute})`, code);
    };
    const c = cublasConstants;
    set(c.CUBLASLT_MATMUL_DESC_TRANSA, new Int32Array([c.CUBLAS_OP_T]));
    if (bias !== undefined) {
      set(c.CUBLASLT_MATMUL_DESC_EPILOGUE, new Int32Array([c.CUBLASLT_EPILOGUE_BIAS]));
      set(c.CUBLASLT_MATMUL_DESC_BIAS_POINTER, new BigUint64Array([bias]));
      set(c.CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, new Int32Array([typeCodes[outputType]]));
    }
    return created[0];
  }

  #layout(type: ElementType, rows: number, columns: number): bigint {
    for (const size of [rows, columns]) {
      if (!Number.isSafeInteger(size) || size < 1) {
        throw new RangeError(
          `a matrix of ${rows} by ${columns} elements; expected at least 1 by 1`,
        );
      }
    }
    const created = new BigUint64Array(1);
    const [r, c] = [BigInt(rows), BigInt(columns)];
    const code = this.#call.cublasLtMatrixLayoutCreate(created, typeCodes[type], r, c, r);
    this.#check("cublasLtMatrixLayoutCreate", code);
    return created[0];
  }

  /** `cublasLtMatmulHeuristicResult_t` of the fastest algorithm within the workspace. */
  #bestAlgorithm({ workspaceBytes, alignmentBytes }: LinearShape): Uint8Array<ArrayBuffer> {
    const call = this.#call, c = cublasConstants;
    const created = new BigUint64Array(1);
    const code = call.cublasLtMatmulPreferenceCreate(created);
    this.#check("cublasLtMatmulPreferenceCreate", code);
    const preference = created[0];
    try {
      const set = (attribute: number, value: BufferSource) => {
        const size = BigInt(value.byteLength);
        const code = call.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, size);
        this.#check(`cublasLtMatmulPreferenceSetAttribute(${attribute})`, code);
      };
      const workspace = BigUint64Array.of(BigInt(workspaceBytes));
      set(c.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
      const schemes = Uint32Array.of(c.CUBLASLT_REDUCTION_SCHEME_NONE);
      set(c.CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
      if (alignmentBytes !== undefined) {
        const alignment = Uint32Array.of(alignmentBytes);
        set(c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
        set(c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
        set(c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
        set(c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
      }
      const result = new Uint8Array(new ArrayBuffer(heuristicLayout.byteLength));
      const found = new Int32Array(1);
      const status = call.cublasLtMatmulAlgoGetHeuristic(
        this.#handle,
        this.#description,
        ...[this.#weights, this.#x, this.#y, this.#y] as const,
        preference,
        1,
        result,
        found,
      );
      this.#check("cublasLtMatmulAlgoGetHeuristic", status);
      const state = new DataView(result.buffer).getInt32(heuristicLayout.state, true);
      this.#check("cublasLtMatmulAlgoGetHeuristic", found[0] === 0 ? notSupported : state);
      return result;
    } finally {
      call.cublasLtMatmulPreferenceDestroy(preference);
    }
  }
}

/** CUBLAS_STATUS_NOT_SUPPORTED. */
const notSupported = 15;

type Check = (call: string, status: number) => void;

function checkOf(symbols: Symbols): Check {
  return (call, status) => {
    if (status === 0) return;
    const name = textAt(symbols.cublasLtGetStatusName(status));
    throw new CublasError(call, status, name, textAt(symbols.cublasLtGetStatusString(status)));
  };
}

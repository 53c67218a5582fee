/** Modules, functions and launches of kernels, which only libcuda has. */
import { type Library, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { addressOf, cString, nativeBuffer, textAt } from "../memory.ts";
import { driverErrorSymbols, driverFailure } from "./driver_errors.ts";
import { CudaError, errorCodes } from "./errors.ts";
import { encodeLaunch, type Launch, launchLayout, maxLaunchAttributes } from "./launch.ts";

export const kernelSymbols = {
  ...driverErrorSymbols,
  // module*, image, options' count, options*, values*
  cuModuleLoadDataEx: {
    parameters: ["buffer", "buffer", "u32", "buffer", "buffer"],
    result: "i32",
  },
  cuModuleUnload: { parameters: ["u64"], result: "i32" },
  cuModuleGetFunction: { parameters: ["buffer", "u64", "buffer"], result: "i32" },
  cuFuncGetAttribute: { parameters: ["buffer", "i32", "u64"], result: "i32" },
  cuFuncSetAttribute: { parameters: ["u64", "i32", "i32"], result: "i32" },
  // From CUDA 12.4 on: function, index, offset*, size*
  cuFuncGetParamInfo: {
    parameters: ["u64", "u64", "buffer", "buffer"],
    result: "i32",
    optional: true,
  },
  // config*, function, parameters**, extra**
  cuLaunchKernelEx: { parameters: ["buffer", "u64", "u64", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type Symbols = Library<typeof kernelSymbols>["symbols"];

/** `CUfunction_attribute` of cuda.h. */
export const functionAttributes = {
  maxThreadsPerBlock: 0,
  staticSharedBytes: 1,
  localBytes: 3,
  registers: 4,
  maxDynamicSharedBytes: 8,
  preferredSharedCarveout: 9,
} as const;

/** CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES. */
export const jitErrorLogBuffer = 5, jitErrorLogBufferBytes = 6;
const jitLogBytes = 8192;

/** Types of kernel parameters with their sizes, which are their alignments too. */
const parameterBytes = { pointer: 8, i64: 8, f64: 8, i32: 4, u32: 4, f32: 4 } as const;

export type ParameterType = keyof typeof parameterBytes;

/** Where a parameter lies in a kernel's parameter buffer. */
export interface ParameterPlace {
  readonly offset: number;
  readonly byteLength: number;
}

/** Kernels of libcuda. The calling thread has set its device. */
export class KernelDriver {
  readonly #call: Symbols;
  readonly #handle = new BigUint64Array(1);

  /** @throws {LibraryNotFoundError} */
  static open(options: OpenOptions = {}): KernelDriver {
    return new KernelDriver(openLibrary(libraries.cuda, kernelSymbols, options).symbols);
  }

  private constructor(call: Symbols) {
    this.#call = call;
  }

  /**
   * Loads PTX (a text) or a cubin into the current device.
   * @throws {CudaError} with the log of the driver's compiler
   */
  loadModule(image: string | Uint8Array<ArrayBuffer>): bigint {
    const log = nativeBuffer(jitLogBytes);
    const options = new Int32Array([jitErrorLogBuffer, jitErrorLogBufferBytes]);
    const values = new BigUint64Array([addressOf(log), BigInt(jitLogBytes)]);
    const bytes = typeof image === "string" ? cString(image) : image;
    const code = this.#call.cuModuleLoadDataEx(this.#handle, bytes, 2, options, values);
    if (code !== errorCodes.CUDA_SUCCESS) {
      const text = textAt(Deno.UnsafePointer.of(log)).trim();
      throw driverFailure(this.#call, "cuModuleLoadDataEx", code, text);
    }
    return this.#handle[0];
  }

  /**
   * Loads the first image that the driver accepts: machine code is for one kind of device.
   * @throws {CudaError} why it refuses the last one
   */
  loadFirst(images: readonly (string | Uint8Array<ArrayBuffer>)[]): bigint {
    for (const image of images.slice(0, -1)) {
      try {
        return this.loadModule(image);
      } catch (error) {
        if (!(error instanceof CudaError)) throw error;
      }
    }
    return this.loadModule(images.at(-1)!);
  }

  unloadModule(module: bigint): void {
    this.#check("cuModuleUnload", this.#call.cuModuleUnload(module));
  }

  /**
   * The kernel `name` of a module, for calls with parameters of `types`.
   * @throws {CudaError} if the module has none of this name
   * @throws {RangeError} if the kernel's parameters have other places, as far as the driver tells
   */
  kernel(module: bigint, name: string, types: readonly ParameterType[]): Kernel {
    const code = this.#call.cuModuleGetFunction(this.#handle, module, cString(name));
    if (code !== errorCodes.CUDA_SUCCESS) {
      throw driverFailure(this.#call, `cuModuleGetFunction(${name})`, code);
    }
    const handle = this.#handle[0];
    const places = placesOf(types);
    const found = this.parameterPlaces(handle);
    if (found !== null && text(found) !== text(places)) {
      throw new RangeError(
        `kernel ${name} has parameters at ${text(found)}; the caller gives ${text(places)}`,
      );
    }
    return new Kernel(this.#call, name, handle, types, places);
  }

  /** Where a function's parameters lie; null if the driver is older than 12.4 and does not tell. */
  parameterPlaces(handle: bigint): ParameterPlace[] | null {
    const { cuFuncGetParamInfo } = this.#call;
    if (cuFuncGetParamInfo === null) return null;
    const offset = new BigUint64Array(1), size = new BigUint64Array(1);
    const places: ParameterPlace[] = [];
    // The first index without a parameter is an error: CUDA_ERROR_INVALID_VALUE.
    while (
      cuFuncGetParamInfo(handle, BigInt(places.length), offset, size) === errorCodes.CUDA_SUCCESS
    ) {
      places.push({ offset: Number(offset[0]), byteLength: Number(size[0]) });
    }
    return places;
  }

  #check(name: string, code: number): void {
    if (code !== errorCodes.CUDA_SUCCESS) throw driverFailure(this.#call, name, code);
  }
}

/** A kernel that can be launched. Its argument buffer is its own: one thread uses it. */
export class Kernel {
  readonly #call: Symbols;
  readonly #types: readonly ParameterType[];
  readonly #places: readonly ParameterPlace[];
  readonly #arguments: DataView<ArrayBuffer>;
  readonly #argumentBytes = new BigUint64Array(new ArrayBuffer(8));
  /** CU_LAUNCH_PARAM_BUFFER_POINTER, buffer, CU_LAUNCH_PARAM_BUFFER_SIZE, size*, CU_LAUNCH_PARAM_END. */
  readonly #extra: BigUint64Array<ArrayBuffer>;
  readonly #config = new DataView(new ArrayBuffer(launchLayout.byteLength));
  readonly #attributes = new DataView(
    new ArrayBuffer(maxLaunchAttributes * launchLayout.attribute.byteLength),
  );

  /** @ignore Made by `KernelDriver.kernel`. */
  constructor(
    call: Symbols,
    readonly name: string,
    readonly handle: bigint,
    types: readonly ParameterType[],
    places: readonly ParameterPlace[],
  ) {
    this.#call = call;
    this.#types = types;
    this.#places = places;
    const last = places.at(-1);
    const byteLength = last === undefined ? 0 : last.offset + last.byteLength;
    this.#arguments = new DataView(new ArrayBuffer(Math.max(byteLength, 1)));
    this.#argumentBytes[0] = BigInt(byteLength);
    const buffer = addressOf(this.#arguments), size = addressOf(this.#argumentBytes);
    this.#extra = new BigUint64Array([1n, buffer, 2n, size, 0n]);
    const attributes = addressOf(this.#attributes);
    this.#config.setBigUint64(launchLayout.attributes, attributes, true);
  }

  /** @param attribute one of `functionAttributes` */
  attribute(attribute: number): number {
    const value = new Int32Array(1);
    this.#check("cuFuncGetAttribute", this.#call.cuFuncGetAttribute(value, attribute, this.handle));
    return value[0];
  }

  /** @param attribute one of `functionAttributes` */
  setAttribute(attribute: number, value: number): void {
    this.#check("cuFuncSetAttribute", this.#call.cuFuncSetAttribute(this.handle, attribute, value));
  }

  /** Launches in the order of the stream. The values are read before it returns. */
  launch(launch: Launch, values: readonly (bigint | number)[]): void {
    this.#write(values);
    encodeLaunch(launch, this.#config, this.#attributes);
    const code = this.#call.cuLaunchKernelEx(this.#config, this.handle, 0n, this.#extra);
    this.#check("cuLaunchKernelEx", code);
  }

  #write(values: readonly (bigint | number)[]): void {
    const types = this.#types;
    if (values.length !== types.length) {
      throw new RangeError(
        `kernel ${this.name} takes ${types.length} parameters, not ${values.length}`,
      );
    }
    for (let i = 0; i < types.length; i++) {
      const { offset } = this.#places[i];
      const type = types[i];
      if (type === "pointer") this.#arguments.setBigUint64(offset, BigInt(values[i]), true);
      else if (type === "i64") this.#arguments.setBigInt64(offset, BigInt(values[i]), true);
      else if (type === "i32") this.#arguments.setInt32(offset, Number(values[i]), true);
      else if (type === "u32") this.#arguments.setUint32(offset, Number(values[i]), true);
      else if (type === "f64") this.#arguments.setFloat64(offset, Number(values[i]), true);
      else this.#arguments.setFloat32(offset, Number(values[i]), true);
    }
  }

  #check(name: string, code: number): void {
    if (code !== errorCodes.CUDA_SUCCESS) {
      throw driverFailure(this.#call, `${name}(${this.name})`, code);
    }
  }
}

/** Places by the rules of C: each parameter at the next multiple of its size. */
function placesOf(types: readonly ParameterType[]): ParameterPlace[] {
  let end = 0;
  return types.map((type) => {
    const byteLength = parameterBytes[type];
    const offset = Math.ceil(end / byteLength) * byteLength;
    end = offset + byteLength;
    return { offset, byteLength };
  });
}

/** "0+8 8+8 16+4". */
function text(places: readonly ParameterPlace[]): string {
  return places.map(({ offset, byteLength }) => `${offset}+${byteLength}`).join(" ") || "none";
}

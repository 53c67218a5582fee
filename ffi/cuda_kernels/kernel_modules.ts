/** The compiled kernels of this directory, loaded into a device. */
import { CudaError } from "../cuda/errors.ts";
import {
  functionAttributes,
  type Kernel,
  KernelDriver,
  type ParameterType,
} from "../cuda/kernels.ts";
import type { Dimensions } from "../cuda/launch.ts";
import type { OpenOptions } from "../library.ts";
import type { KernelDevice } from "./decoder_types.ts";
import { type KernelFile, kernelImages } from "./kernel_images.ts";

/** How a kernel is launched. */
export interface KernelShape {
  /** Blocks. */
  readonly grid: Dimensions;
  /** Of a block. */
  readonly threads: number;
  /** Dynamic shared memory of a block. */
  readonly sharedBytes?: number;
}

/** A kernel, with the stream on which it is launched. */
export type Launcher = (shape: KernelShape, ...values: readonly (bigint | number)[]) => void;

const usualSharedBytes = 48 << 10;

const parameterTypes: Readonly<Record<string, ParameterType>> = {
  p: "pointer",
  l: "i64",
  i: "i32",
  f: "f32",
};

/** Modules of kernels, loaded into the device that is current on the calling thread. */
export class KernelModules {
  /**
   * Whether the kernels were compiled for this device. Only then do they wait for the kernel before by
   * themselves, which programmatic launches need.
   */
  readonly isNative: boolean;
  /** Why the driver refuses the machine code for this device; null: it does not, or there is none. */
  readonly nativeRefusal: string | null = null;
  readonly #driver: KernelDriver;
  readonly #modules: ReadonlyMap<KernelFile, bigint>;
  readonly #stream: bigint;
  readonly #isProgrammatic: boolean;

  /**
   * @param stream in whose order everything is launched
   * @param programmatic whether kernels that wait for the kernel before may begin before it has ended
   * @throws {LibraryNotFoundError} without libcuda
   * @throws {CudaError} if the driver refuses the kernels
   */
  constructor(
    files: readonly KernelFile[],
    device: KernelDevice,
    stream: bigint,
    programmatic: boolean,
    options: OpenOptions,
  ) {
    this.#driver = KernelDriver.open(options);
    this.#stream = stream;
    const [major, minor] = device.computeCapability;
    const native = major === 9 && minor === 0 ? this.#loadAll(files, "sm_90a") : null;
    this.isNative = native instanceof Map;
    if (native instanceof CudaError) this.nativeRefusal = native.message;
    const modules = native instanceof Map ? native : this.#loadAll(files, "ptx");
    if (modules instanceof CudaError) throw modules;
    this.#modules = modules;
    this.#isProgrammatic = programmatic && this.isNative;
  }

  /**
   * A kernel of a module.
   * @param parameters a letter each: p pointer, l i64, i i32, f f32
   * @param waits whether the kernel waits for the kernel before by itself (`grid_wait`)
   * @throws {CudaError} if the module has none of this name
   */
  launcher(file: KernelFile, name: string, parameters: string, waits = false): Launcher {
    const types = Array.from(parameters, (letter) => parameterTypes[letter]);
    const kernel = this.#driver.kernel(this.#modules.get(file)!, name, types);
    const programmatic = waits && this.#isProgrammatic;
    const stream = this.#stream;
    let allowed = usualSharedBytes;
    return ({ grid, threads, sharedBytes = 0 }, ...values) => {
      if (sharedBytes > allowed) allowShared(kernel, allowed = sharedBytes);
      kernel.launch({ grid, block: [threads, 1, 1], stream, sharedBytes, programmatic }, values);
    };
  }

  /** Unloads the kernels, once no launch is under way. */
  close(): void {
    for (const module of this.#modules.values()) this.#driver.unloadModule(module);
  }

  /** The error if the driver refuses a module: it may be older than the compiler of the machine code. */
  #loadAll(
    files: readonly KernelFile[],
    target: "ptx" | "sm_90a",
  ): Map<KernelFile, bigint> | CudaError {
    const modules = new Map<KernelFile, bigint>();
    try {
      for (const file of files) {
        modules.set(file, this.#driver.loadModule(kernelImages[file][target]));
      }
      return modules;
    } catch (error) {
      for (const module of modules.values()) this.#driver.unloadModule(module);
      if (error instanceof CudaError) return error;
      throw error;
    }
  }
}

function allowShared(kernel: Kernel, bytes: number): void {
  kernel.setAttribute(functionAttributes.maxDynamicSharedBytes, bytes);
}

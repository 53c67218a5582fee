/** The kernels of kv.cu: copies of many short runs, and patterns that tests of transfers check. */
import { type Kernel, KernelDriver } from "../cuda/kernels.ts";
import type { OpenOptions } from "../library.ts";
import ptx from "./kv.ptx" with { type: "text" };
import cubin from "./kv.sm_90a.cubin" with { type: "bytes" };

/**
 * Addresses of tables that the device can read, in device or pinned memory. They are read when the
 * kernel runs, and must stay as they are until then.
 */
export interface RunTables {
  /** u64 addresses, multiples of 16: [runs]. */
  readonly destinations: bigint;
  readonly sources: bigint;
  /** u32 sizes, multiples of 16: [runs]. */
  readonly byteLengths: bigint;
}

/** Blocks of one size and the keys of their patterns. */
export interface PatternBlocks {
  /** Address of u64 addresses of the blocks, multiples of 16: [blocks]. */
  readonly addresses: bigint;
  /** Address of u64 keys, which name the contents: [blocks]. */
  readonly keys: bigint;
  readonly blocks: number;
  /** Of each block, a multiple of 16. */
  readonly byteLength: number;
}

export interface KvKernelOptions extends OpenOptions {
  /** Threads of a block, a multiple of 32 up to 1024. */
  readonly threads?: number;
}

const vectorBytes = 16;
/** 16-byte vectors that a thread moves at once, as in kv.cu. */
const vectorsPerThread = 4;
const mostThreads = 1024, mostParts = 65535, mostRuns = 0x7fffffff;

/** The kernels of kv.cu, loaded into the device that is current on the calling thread. */
export class KvKernels {
  readonly #driver: KernelDriver;
  readonly #module: bigint;
  readonly #threads: number;
  readonly #copy: Kernel;
  readonly #fill: Kernel;
  readonly #check: Kernel;

  /**
   * @throws {LibraryNotFoundError} without libcuda
   * @throws {CudaError} if the driver refuses the kernels
   */
  static open(options: KvKernelOptions = {}): KvKernels {
    return new KvKernels(KernelDriver.open(options), options.threads ?? 256);
  }

  private constructor(driver: KernelDriver, threads: number) {
    if (!(threads >= 32 && threads <= mostThreads && threads % 32 === 0)) {
      throw new RangeError(`${threads} threads; expected a multiple of 32 up to ${mostThreads}`);
    }
    this.#driver = driver;
    this.#threads = threads;
    this.#module = driver.loadFirst([cubin, ptx]);
    const kernel = driver.kernel.bind(driver, this.#module);
    this.#copy = kernel("kv_copy", ["pointer", "pointer", "pointer", "u32"]);
    this.#fill = kernel("kv_fill", ["pointer", "pointer", "u32", "u32"]);
    this.#check = kernel("kv_check", ["pointer", "pointer", "u32", "u32", "pointer", "pointer"]);
  }

  /**
   * Copies runs, in the order of the stream and among themselves in any order. Meant for runs of up to
   * 64 KiB, gathered, scattered or both.
   * @param longestBytes of the runs: it decides how many blocks of threads share one
   * @throws {RangeError}
   */
  copy(tables: RunTables, runs: number, longestBytes: number, stream: bigint): void {
    const values = [tables.destinations, tables.sources, tables.byteLengths, runs];
    this.#launch(this.#copy, runs, longestBytes, stream, values);
  }

  /** Fills each block with the pattern of its key. @throws {RangeError} */
  fill({ addresses, keys, blocks, byteLength }: PatternBlocks, stream: bigint): void {
    this.#launch(this.#fill, blocks, byteLength, stream, [addresses, keys, byteLength, blocks]);
  }

  /**
   * Compares each block with the pattern of its key.
   * @param wrong address of u32 [blocks], set to 0 before: how many 16-byte vectors differ
   * @param first address of u32 [blocks], set to 0xffffffff before: the first of them
   * @throws {RangeError}
   */
  check(of: PatternBlocks, wrong: bigint, first: bigint, stream: bigint): void {
    const { addresses, keys, blocks, byteLength } = of;
    const values = [addresses, keys, byteLength, blocks, wrong, first];
    this.#launch(this.#check, blocks, byteLength, stream, values);
  }

  /** Unloads the kernels, once no launch is under way. */
  close(): void {
    this.#driver.unloadModule(this.#module);
  }

  #launch(
    kernel: Kernel,
    runs: number,
    longestBytes: number,
    stream: bigint,
    values: readonly (bigint | number)[],
  ): void {
    if (!(Number.isInteger(runs) && runs >= 1 && runs <= mostRuns)) {
      throw new RangeError(`${runs} runs; expected 1 to ${mostRuns}`);
    }
    const isWhole = Number.isInteger(longestBytes) && longestBytes % vectorBytes === 0;
    if (!(isWhole && longestBytes > 0 && longestBytes < 2 ** 32)) {
      throw new RangeError(
        `runs of ${longestBytes} bytes; expected a multiple of ${vectorBytes} below 4 GiB`,
      );
    }
    const perPart = this.#threads * vectorsPerThread * vectorBytes;
    const parts = Math.min(Math.ceil(longestBytes / perPart), mostParts);
    kernel.launch({ grid: [runs, parts, 1], block: [this.#threads, 1, 1], stream }, values);
  }
}

import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { OutOfMemoryError } from "../../../ffi/cuda/errors.ts";
import { UsageError } from "../../core/errors.ts";
import { shownSize } from "../../kv/sizing.ts";

/** The memory of one executor on the current device, without its KV cache: all of it is freed together. */
export class DeviceMemory {
  readonly #cuda: Cuda;
  readonly #addresses: bigint[] = [];
  #bytes = 0;

  constructor(cuda: Cuda) {
    this.#cuda = cuda;
  }

  /** Bytes that were taken. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Allocates memory, aligned to 256 bytes.
   * @param what it is for, for people
   * @param advice how to need less, for people
   * @throws {UsageError} the device has too little
   */
  allocate(byteLength: number, what: string, advice: string): bigint {
    try {
      const address = this.#cuda.malloc(byteLength);
      this.#addresses.push(address);
      this.#bytes += byteLength;
      return address;
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      const { neededBytes, freeBytes } = error;
      const free = freeBytes === null ? "less is free" : `${shownSize(freeBytes)} is free`;
      throw new UsageError(
        `Cannot allocate ${what}: ${shownSize(neededBytes)} of device memory is needed, and ` +
          `${free}. ${advice}`,
        { cause: error },
      );
    }
  }

  /** Frees all of it, once nothing on the device uses it. */
  free(): void {
    for (const address of this.#addresses.splice(0)) this.#cuda.free(address);
    this.#bytes = 0;
  }
}

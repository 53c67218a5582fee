import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { OutOfMemoryError } from "../../../ffi/cuda/errors.ts";
import { bytesAt } from "../../../ffi/memory.ts";
import { UsageError } from "../../core/errors.ts";

/** Words in pinned memory that go to the device or come from it again and again, in the order of a stream. */
export class PinnedWords {
  /** Written only between {@linkcode wait} and {@linkcode send}. */
  readonly words: Int32Array<ArrayBuffer>;
  readonly #cuda: Cuda;
  readonly #stream: bigint;
  readonly #address: bigint;
  /** Recorded when the device has read or written the words. */
  readonly #isDone: bigint;

  /** @throws {UsageError} the host cannot lock so much memory */
  constructor(cuda: Cuda, stream: bigint, length: number) {
    this.#cuda = cuda;
    this.#stream = stream;
    this.#address = pinned(cuda, length * 4);
    this.words = new Int32Array(bytesAt(this.#address, length * 4).buffer);
    this.#isDone = cuda.createEvent();
  }

  /** Returns when the device has read what was sent, and written what was fetched. */
  wait(): void {
    this.#cuda.synchronizeEvent(this.#isDone);
  }

  /** Sends `length` words from the word `first` on to an address of the device. */
  send(to: bigint, length: number, first = 0): void {
    this.#cuda.copy(to, this.#address + BigInt(first * 4), length * 4, this.#stream);
    this.#cuda.recordEvent(this.#isDone, this.#stream);
  }

  /** Asks for `length` words from an address of the device: they are there after {@linkcode wait}. */
  fetch(from: bigint, length: number, first = 0): void {
    this.#cuda.copy(this.#address + BigInt(first * 4), from, length * 4, this.#stream);
    this.#cuda.recordEvent(this.#isDone, this.#stream);
  }

  /** Reads `length` words from an address of the device; returns when the first `length` words are they. */
  receive(from: bigint, length: number): void {
    this.fetch(from, length);
    this.wait();
  }

  /** Frees the memory, once nothing is under way. */
  close(): void {
    this.#cuda.destroyEvent(this.#isDone);
    this.#cuda.hostFree(this.#address);
  }
}

function pinned(cuda: Cuda, byteLength: number): bigint {
  try {
    return cuda.hostAlloc(byteLength);
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    throw new UsageError(
      `--device cuda: the host cannot lock ${byteLength} bytes of memory. Free memory of the ` +
        "host, or lower --max-model-len.",
      { cause: error },
    );
  }
}

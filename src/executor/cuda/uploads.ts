import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { bytesAt } from "../../../ffi/memory.ts";

/** Bytes of one of the two buffers: large enough for the full bandwidth of PCIe. */
export const UPLOAD_BUFFER_BYTES = 16 << 20;

/**
 * Copies memory of the host to the device through two pinned buffers: the host fills one while the device
 * empties the other. The calling thread waits.
 */
export class Uploads {
  readonly #cuda: Cuda;
  readonly #stream: bigint;
  readonly #buffers: readonly { readonly bytes: Uint8Array; readonly address: bigint }[];
  readonly #emptied: readonly bigint[];
  #turn = 0;

  /** @param bufferBytes of each buffer; for tests */
  constructor(cuda: Cuda, stream: bigint, bufferBytes = UPLOAD_BUFFER_BYTES) {
    this.#cuda = cuda;
    this.#stream = stream;
    this.#buffers = [0, 1].map(() => {
      const address = cuda.hostAlloc(bufferBytes);
      return { address, bytes: bytesAt(address, bufferBytes) };
    });
    this.#emptied = [0, 1].map(() => cuda.createEvent({ blockingSync: true }));
  }

  /** `from` may change as soon as this returns. */
  write(to: bigint, from: Uint8Array): void {
    for (let done = 0; done < from.length;) {
      const turn = this.#turn++ % 2;
      const { bytes, address } = this.#buffers[turn];
      const count = Math.min(from.length - done, bytes.length);
      this.#cuda.synchronizeEvent(this.#emptied[turn]);
      bytes.set(from.subarray(done, done + count));
      this.#cuda.copy(to + BigInt(done), address, count, this.#stream);
      this.#cuda.recordEvent(this.#emptied[turn], this.#stream);
      done += count;
    }
  }

  /** Returns when everything is on the device. */
  finish(): void {
    for (const event of this.#emptied) this.#cuda.synchronizeEvent(event);
  }

  /** Frees the buffers. */
  close(): void {
    this.finish();
    for (const event of this.#emptied) this.#cuda.destroyEvent(event);
    for (const { address } of this.#buffers) this.#cuda.hostFree(address);
  }
}

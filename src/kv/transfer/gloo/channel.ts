import type { Sockets } from "../../../../ffi/sockets.ts";

/** The connection cannot be used any more. */
export class ConnectionLost extends Error {}

/**
 * The bytes of a connection, as they are or sealed. Nothing waits. Counts are of the bytes before they
 * were sealed; 0 is the end of the stream, -1 that nothing can be read or written now.
 */
export interface Channel {
  /** Bytes have arrived that `poll` does not tell of. */
  readonly hasBuffered: boolean;
  /** Bytes wait that {@linkcode flush} can write. */
  readonly hasUnsent: boolean;
  /** @throws {ConnectionLost} what arrived is not of the other end */
  read(into: Uint8Array<ArrayBuffer>): number;
  write(bytes: Uint8Array<ArrayBuffer>): number;
  /**
   * Reads into native memory.
   * @param places pairs of address and bytes
   * @throws {ConnectionLost} as {@linkcode read}
   */
  readInto(places: BigUint64Array<ArrayBuffer>): number;
  /** Writes from native memory. */
  writeFrom(places: BigUint64Array<ArrayBuffer>): number;
  flush(): void;
  /** How many bytes will come at least: the thread need not wake for fewer. */
  expect(bytes: number): void;
}

/** Straight between memory and socket. */
export class PlainChannel implements Channel {
  readonly hasBuffered = false;
  readonly hasUnsent = false;
  #leastBytes = 1;

  constructor(private readonly sockets: Sockets, private readonly fd: number) {}

  read(into: Uint8Array<ArrayBuffer>): number {
    return this.sockets.read(this.fd, into);
  }

  write(bytes: Uint8Array<ArrayBuffer>): number {
    return this.sockets.write(this.fd, bytes);
  }

  readInto(places: BigUint64Array<ArrayBuffer>): number {
    return this.sockets.readInto(this.fd, places);
  }

  writeFrom(places: BigUint64Array<ArrayBuffer>): number {
    return this.sockets.writeFrom(this.fd, places);
  }

  flush(): void {}

  expect(bytes: number): void {
    const leastBytes = Math.max(1, bytes);
    if (leastBytes === this.#leastBytes) return;
    this.#leastBytes = leastBytes;
    this.sockets.setLeastBytes(this.fd, leastBytes);
  }
}

/** The receiving end of datagrams to a Unix socket, as systemd has it: for tests. Linux only. */
import { openLibC } from "../../ffi/libc.ts";

const symbols = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const AF_UNIX = 1, SOCK_DGRAM = 2, SOCK_CLOEXEC = 0o2000000, MSG_DONTWAIT = 0x40;
const MAX_BYTES = 4096;

/** A bound socket. */
export class UnixDatagramSocket implements Disposable {
  readonly #c = openLibC(symbols)!;
  readonly #fd: number;

  /** @param path an abstract name begins with "@" */
  constructor(readonly path: string) {
    const name = new TextEncoder().encode(path);
    if (path.startsWith("@")) name[0] = 0;
    const address = Uint8Array.of(AF_UNIX, 0, ...name);
    this.#fd = this.#c.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (this.#c.bind(this.#fd, address, address.length) !== 0) {
      throw new Error(`cannot bind ${path}`);
    }
  }

  /** The next datagram; null: none has come. */
  receive(): string | null {
    const buffer = new Uint8Array(MAX_BYTES);
    const bytes = Number(this.#c.recv(this.#fd, buffer, BigInt(MAX_BYTES), MSG_DONTWAIT));
    return bytes < 0 ? null : new TextDecoder().decode(buffer.subarray(0, bytes));
  }

  /** All that have come. */
  *receiveAll(): Generator<string> {
    for (let text = this.receive(); text !== null; text = this.receive()) yield text;
  }

  [Symbol.dispose](): void {
    this.#c.close(this.#fd);
  }
}

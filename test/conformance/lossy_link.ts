/** A TCP connection with the faults of a network: a proxy in front of a port. */

const CHUNK_BYTES = 64 << 10;

export interface LinkFaults {
  /** Bytes that pass towards the port, on all connections together, before something happens. */
  readonly afterBytes?: number;
  /** `cut`: both sides are closed. `hang`: nothing passes any more, in either direction. */
  readonly then?: "cut" | "hang";
  /** Bytes per millisecond towards the port. */
  readonly bytesPerMs?: number;
}

interface Pair {
  readonly near: Deno.TcpConn;
  readonly far: Deno.TcpConn;
}

export class LossyLink {
  readonly #listener: Deno.TcpListener;
  readonly #targetPort: number;
  readonly #pairs = new Set<Pair>();
  #faults: LinkFaults = {};
  #passedBytes = 0;
  numConnections = 0;

  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Bytes that passed towards the port since the faults were set. */
  get passedBytes(): number {
    return this.#passedBytes;
  }

  /** From now on; connections that hang go on hanging. */
  set(faults: LinkFaults): void {
    this.#faults = faults;
    this.#passedBytes = 0;
  }

  /** Closes one side of all connections; the other notices nothing, and gets no answer. */
  halfClose(side: "near" | "far"): void {
    for (const pair of this.#pairs) {
      this.#isHanging.add(pair);
      close(pair[side]);
    }
  }

  close(): void {
    this.#listener.close();
    for (const { near, far } of this.#pairs) {
      close(near);
      close(far);
    }
  }

  readonly #isHanging = new WeakSet<Pair>();

  async #accept(): Promise<void> {
    for await (const near of this.#listener) {
      this.numConnections++;
      let far;
      try {
        far = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
      } catch {
        close(near);
        continue;
      }
      const pair = { near, far };
      this.#pairs.add(pair);
      this.#pump(pair, near, far, true);
      this.#pump(pair, far, near, false);
    }
  }

  async #pump(pair: Pair, from: Deno.TcpConn, to: Deno.TcpConn, isForward: boolean) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    try {
      for (;;) {
        if (isForward && this.#isDue()) this.#fail(pair);
        const bytes = await from.read(chunk.subarray(0, this.#allowance(isForward)));
        if (bytes === null) break;
        if (this.#isHanging.has(pair)) return;
        const { bytesPerMs } = this.#faults;
        if (isForward && bytesPerMs) {
          await new Promise((resolve) => setTimeout(resolve, bytes / bytesPerMs));
        }
        for (let sent = 0; sent < bytes;) sent += await to.write(chunk.subarray(sent, bytes));
        if (isForward) this.#passedBytes += bytes;
      }
    } catch {
      // One of the two is closed.
    }
    if (this.#isHanging.has(pair)) return;
    close(from);
    close(to);
    this.#pairs.delete(pair);
  }

  #isDue(): boolean {
    const { afterBytes, then } = this.#faults;
    return then !== undefined && this.#passedBytes >= (afterBytes ?? 0);
  }

  #allowance(isForward: boolean): number {
    const { afterBytes, then } = this.#faults;
    if (!isForward || then === undefined) return CHUNK_BYTES;
    return Math.max(1, Math.min(CHUNK_BYTES, (afterBytes ?? 0) - this.#passedBytes));
  }

  #fail(pair: Pair): void {
    if (this.#faults.then === "hang") this.#isHanging.add(pair);
    else {
      close(pair.near);
      close(pair.far);
    }
  }
}

function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // It is closed already.
  }
}

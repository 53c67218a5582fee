/** An end of a bus connection that says what it likes. */
import { PROTOCOL_VERSION } from "../../src/core/protocol/calls.ts";
import { concat } from "./mutate.ts";

/** How long an end that says nothing more may take to answer or close. */
const PATIENCE_MS = 20;

export type Record = readonly unknown[];

/** One frame: the list of its records, and a payload that belongs to the last. */
export function frameOf(json: string, payload?: Uint8Array): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(json);
  const head = new Uint8Array(8);
  const view = new DataView(head.buffer);
  view.setUint32(0, text.length, true);
  view.setUint32(4, payload?.length ?? 0xffffffff, true);
  return concat(head, text, payload ?? new Uint8Array(0));
}

export const greeting = frameOf(JSON.stringify(["llumnix", PROTOCOL_VERSION]));

export class Rogue {
  readonly #conn: Deno.Conn;
  #buffer = new Uint8Array(0);
  #isOpen = true;
  #wake = () => {};
  /** What the other end said, as far as it was made of frames. */
  readonly records: Record[] = [];
  /** Called with every record that comes. */
  onRecord: (record: Record) => void = () => {};

  constructor(conn: Deno.Conn) {
    this.#conn = conn;
    this.#read();
  }

  static async connect(path: string): Promise<Rogue> {
    const rogue = new Rogue(await Deno.connect({ transport: "unix", path }));
    await rogue.send(greeting);
    return rogue;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** A no-op once the other end has closed. */
  async send(bytes: Uint8Array): Promise<void> {
    try {
      for (let sent = 0; sent < bytes.length && this.#isOpen;) {
        sent += await this.#conn.write(bytes.subarray(sent));
      }
    } catch {
      this.#isOpen = false;
    }
  }

  /** Until the other end has closed, or `condition` holds, or nothing came for a while. */
  async settle(condition: () => boolean = () => false): Promise<void> {
    while (this.#isOpen && !condition()) {
      const woken = Promise.withResolvers<boolean>();
      this.#wake = () => woken.resolve(true);
      const timer = setTimeout(() => woken.resolve(false), PATIENCE_MS);
      const goesOn = await woken.promise;
      clearTimeout(timer);
      if (!goesOn) return;
    }
  }

  close(): void {
    this.#isOpen = false;
    try {
      this.#conn.close();
    } catch {
      // It is closed already.
    }
  }

  async #read(): Promise<void> {
    const chunk = new Uint8Array(64 << 10);
    try {
      for (;;) {
        const count = await this.#conn.read(chunk);
        if (count === null) break;
        this.#buffer = concat(this.#buffer, chunk.subarray(0, count));
        this.#takeFrames();
        this.#wake();
      }
    } catch {
      // Reset, or closed by this end.
    }
    this.close();
    this.#wake();
  }

  #takeFrames(): void {
    while (this.#buffer.length >= 8) {
      const view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset);
      const payloadBytes = view.getUint32(4, true);
      const jsonEnd = 8 + view.getUint32(0, true);
      const end = jsonEnd + (payloadBytes === 0xffffffff ? 0 : payloadBytes);
      if (this.#buffer.length < end) return;
      const records = JSON.parse(new TextDecoder().decode(this.#buffer.subarray(8, jsonEnd)));
      this.#buffer = this.#buffer.slice(end);
      if (records[0] === "llumnix") continue;
      for (const record of records as Record[]) {
        this.records.push(record);
        this.onRecord(record);
      }
    }
  }
}

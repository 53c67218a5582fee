/**
 * A unit of transport: JSON texts of records, joined by commas, and at most one payload, which
 * belongs to the last record.
 */
export interface Frame {
  text: string;
  payload: Uint8Array<ArrayBuffer> | null;
}

/** Bytes that a frame counts against the backlog; text counts one per UTF-16 unit. */
export function frameSize(frame: Frame): number {
  return frame.text.length + (frame.payload?.length ?? 0);
}

/**
 * What one end has to send, in order. Records that wait together share a frame, so that a tick's
 * worth of small messages costs one encode, one write, one decode and one parse.
 */
export class Outbox {
  #frames: Frame[] = [];
  #open: Frame | null = null;
  #bytes = 0;

  /** @param maxSharedChars longest text of a frame that several records share */
  constructor(private readonly maxSharedChars: number) {}

  /** Bytes pushed and not yet released. */
  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#frames.length === 0;
  }

  push(record: string, payload: Uint8Array<ArrayBuffer> | null): void {
    const open = this.#open;
    if (open !== null && open.text.length + 1 + record.length <= this.maxSharedChars) {
      open.text += "," + record;
      this.#bytes += record.length + 1;
      if (payload !== null) this.#seal(open, payload);
      return;
    }
    const frame: Frame = { text: record, payload: null };
    this.#frames.push(frame);
    this.#bytes += record.length;
    this.#open = frame;
    if (payload !== null) this.#seal(frame, payload);
  }

  /** All frames that wait. Their bytes count until {@linkcode release}. */
  takeAll(): Frame[] {
    const frames = this.#frames;
    this.#frames = [];
    this.#open = null;
    return frames;
  }

  /** The transport has taken `bytes` of the frames it took. */
  release(bytes: number): void {
    this.#bytes -= bytes;
  }

  #seal(frame: Frame, payload: Uint8Array<ArrayBuffer>): void {
    frame.payload = payload;
    this.#bytes += payload.length;
    this.#open = null;
  }
}

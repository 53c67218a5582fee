/** What happened in a run, for people: virtual time, node, event. */
export class Trace {
  readonly #lines: string[] = [];

  /** @param isOn false: keeps and formats nothing */
  constructor(private readonly nowMs: () => number, readonly isOn: boolean) {}

  add(who: string, what: () => string): void {
    if (!this.isOn) return;
    this.#lines.push(`${this.nowMs().toFixed(3).padStart(12)} ${who.padEnd(24)} ${what()}`);
  }

  toString(): string {
    return this.#lines.join("\n");
  }
}

/** Names of the record kinds of `src/bus/base_peer.ts`. */
const RECORD_KINDS = ["notify", "call", "answer", "error"];
const MAX_DATA_CHARS = 160;

/** The records of a frame: kind, id if an answer follows, method, data. */
export function recordsOf(text: string): unknown[][] {
  return JSON.parse(`[${text}]`);
}

/** The records of a frame, without large fields. */
export function describeFrame(text: string): string {
  return recordsOf(text).map(([kind, ...rest]) => {
    const data = shorten(rest.pop());
    return `${RECORD_KINDS[kind as number]} ${rest.join(" ")} ${data}`;
  }).join(" | ");
}

function shorten(data: unknown): string {
  const text = JSON.stringify(data, (key, value) => {
    if (key === "params" || key === "layout" || value === undefined) return undefined;
    return Array.isArray(value) && key === "promptTokenIds" ? `${value.length} tokens` : value;
  }) ?? "null";
  return text.length <= MAX_DATA_CHARS ? text : text.slice(0, MAX_DATA_CHARS) + "...";
}

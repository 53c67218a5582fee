/** The header `traceparent` (W3C Trace Context, level 1). */

/** A span of another process, the parent of ours. */
export interface RemoteSpan {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  /** Its trace is recorded. */
  readonly isSampled: boolean;
}

/** Versions after 00 may have more fields behind. */
const form = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** Reads the header; null if it is not valid: then a trace of its own begins, as the standard asks. */
export function parseTraceparent(header: string): RemoteSpan | null {
  const match = form.exec(header.trim());
  if (match === null) return null;
  const [, version, traceId, spanId, flags, rest] = match;
  if (version === "ff" || (version === "00" && rest !== undefined)) return null;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return null;
  return { traceId, spanId, isSampled: (parseInt(flags, 16) & 1) === 1 };
}

/** The worker's side of {@linkcode EncoderPool}: holds a tokenizer and encodes segments. */
import { createTokenizer, loadTokenizer, type TokenizerSource } from "../tokenizer.ts";
import type { Segment } from "./segment_encoder.ts";

/** Main thread to worker. `load` comes first. */
export type EncoderRequest =
  | { readonly type: "load"; readonly source: TokenizerSource }
  | { readonly type: "encode"; readonly segments: readonly Segment[] };

/** Worker to main thread: `started` unasked, because earlier messages would be lost; then one reply each. */
export type EncoderReply =
  | { readonly type: "started" }
  | { readonly type: "loaded" }
  | { readonly type: "encoded"; readonly ids: readonly Uint32Array[] }
  | { readonly type: "failed"; readonly message: string };

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  postMessage(reply: EncoderReply, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<EncoderRequest>) => void) | null;
}

/** Serves this worker's main thread; the entry of a worker with the role `tokenizer`. */
export function runEncoderWorker(): void {
  const scope = globalThis as unknown as WorkerScope;
  let encode: ((segment: Segment) => number[]) | null = null;

  async function answer(request: EncoderRequest): Promise<void> {
    if (request.type === "load") {
      const { source } = request;
      const { segments } = "directory" in source
        ? await loadTokenizer(source.directory)
        : createTokenizer(source.files);
      encode = (segment) => segments.encode(segment);
      return scope.postMessage({ type: "loaded" });
    }
    const ids = request.segments.map((segment) => Uint32Array.from(encode!(segment)));
    scope.postMessage({ type: "encoded", ids }, ids.map(({ buffer }) => buffer));
  }

  scope.onmessage = ({ data }) => {
    answer(data).catch((error) => scope.postMessage({ type: "failed", message: String(error) }));
  };
  scope.postMessage({ type: "started" });
}

import type {
  Finish,
  GenerateRequest,
  RequestId,
  RequestOutput,
  SamplingParams,
} from "../../core/protocol/generate.ts";
import { toErrorRecord } from "../../core/errors.ts";
import { expectedOutput } from "./paged_model.ts";
import { POISON_SEED } from "./timed_model.ts";
import type { ScenarioEngine } from "./scenario.ts";

export type LedgerState = "submitting" | "running" | "ended" | "aborted" | "gone";

/** A request, and what its client has received. */
export interface LedgerEntry {
  /** Its API server may change: see {@linkcode RequestLedger.resume}. */
  request: GenerateRequest;
  readonly expectedTokenIds: readonly number[];
  readonly expectedFinish: Finish;
  readonly tokenIds: number[];
  /** `gone`: its API server has died. */
  state: LedgerState;
}

/** Compares every answer of a run, as it comes, with the answer of an undisturbed instance. */
export class RequestLedger {
  readonly entries = new Map<RequestId, LedgerEntry>();
  readonly #engine: ScenarioEngine;
  readonly #report: (violation: string) => void;
  /** Whether the cluster may fail a request because instances or connections were lost. */
  readonly #mayFail: () => boolean;

  constructor(
    engine: ScenarioEngine,
    report: (violation: string) => void,
    mayFail: () => boolean,
  ) {
    this.#engine = engine;
    this.#report = report;
    this.#mayFail = mayFail;
  }

  /** Requests that must still end. */
  get numOpen(): number {
    let open = 0;
    for (const { state } of this.entries.values()) {
      if (state === "submitting" || state === "running") open++;
    }
    return open;
  }

  add(request: GenerateRequest): LedgerEntry {
    const { promptTokenIds, params } = request;
    // A prompt of the greatest length still gets one token.
    const room = Math.max(1, this.#engine.maxModelLen - promptTokenIds.length);
    const tokens = expectedOutput(promptTokenIds, params.seed, Math.min(params.maxTokens, room));
    const entry: LedgerEntry = {
      request,
      ...untilEnd(tokens, params),
      tokenIds: [],
      state: "submitting",
    };
    this.entries.set(request.requestId, entry);
    return entry;
  }

  /**
   * Another API server resumes a request whose own has died.
   * @param numLost newest tokens that had not reached the client
   */
  resume(entry: LedgerEntry, frontendId: string, numLost: number): void {
    entry.request = { ...entry.request, frontendId };
    entry.tokenIds.length = Math.max(0, entry.tokenIds.length - numLost);
    entry.state = "submitting";
  }

  accepted({ request }: LedgerEntry): void {
    const entry = this.entries.get(request.requestId)!;
    if (entry.state === "submitting") entry.state = "running";
  }

  refused(entry: LedgerEntry, error: unknown): void {
    if (entry.state !== "submitting") {
      if (entry.state === "ended") this.#violate(entry, "was refused after it had ended");
      return;
    }
    entry.state = "ended";
    const record = toErrorRecord(error);
    this.#checkError(entry, record.kind, record.message);
  }

  output(entry: LedgerEntry, output: RequestOutput): void {
    const { state, tokenIds, expectedTokenIds } = entry;
    if (state !== "running" && state !== "submitting") {
      return this.#violate(entry, `has output although it is ${state}`);
    }
    if (output.index !== tokenIds.length) {
      this.#violate(entry, `got index ${output.index}, expected ${tokenIds.length}`);
    }
    for (const tokenId of output.tokenIds) {
      const expected = expectedTokenIds[tokenIds.length];
      if (tokenId !== expected) {
        this.#violate(entry, `got ${tokenId} at ${tokenIds.length}, expected ${expected}`);
      }
      tokenIds.push(tokenId);
    }
    if (output.finish) this.#end(entry, output.finish);
  }

  #end(entry: LedgerEntry, finish: Finish): void {
    entry.state = "ended";
    const { expectedFinish, expectedTokenIds, tokenIds } = entry;
    if (finish.reason === "error") {
      const { kind, message } = finish.error!;
      return this.#checkError(entry, kind, message);
    }
    if (tokenIds.length !== expectedTokenIds.length) {
      const what = `${tokenIds.length} of ${expectedTokenIds.length} tokens`;
      return this.#violate(entry, `ended by ${finish.reason} with ${what}`);
    }
    const isSame = finish.reason === expectedFinish.reason &&
      finish.stopTokenId === expectedFinish.stopTokenId;
    if (!isSame) {
      const expected = JSON.stringify(expectedFinish);
      this.#violate(entry, `ended by ${JSON.stringify(finish)}, expected ${expected}`);
    }
  }

  #checkError(entry: LedgerEntry, kind: string, message: string): void {
    const isExplained = kind === "unavailable"
      ? entry.request.params.seed === POISON_SEED || this.#mayFail()
      : kind === "invalid_request" && this.#neverFits(entry);
    if (!isExplained) this.#violate(entry, `failed without a cause: ${kind}: ${message}`);
  }

  /** Whether the pool is too small: for its prompt above the watermark, or for all but its last token. */
  #neverFits({ request, tokenIds, expectedTokenIds }: LedgerEntry): boolean {
    const { blockSize, numBlocks, maxModelLen } = this.#engine;
    const promptTokens = request.promptTokenIds.length;
    if (promptTokens > maxModelLen) return true;
    const watermarkBlocks = Math.floor(0.01 * numBlocks);
    const promptBlocks = Math.ceil(promptTokens / blockSize) + watermarkBlocks;
    if (tokenIds.length === 0 && promptBlocks > numBlocks) return true;
    return Math.ceil((promptTokens + expectedTokenIds.length - 1) / blockSize) > numBlocks;
  }

  #violate({ request }: LedgerEntry, what: string): void {
    this.#report(`${request.requestId} ${what}`);
  }
}

/** The expected output, and why it ends there. */
function untilEnd(
  tokens: readonly number[],
  params: SamplingParams,
): Pick<LedgerEntry, "expectedTokenIds" | "expectedFinish"> {
  for (let i = Math.max(0, params.minTokens - 1); i < tokens.length; i++) {
    const tokenId = tokens[i];
    const isEos = !params.ignoreEos && params.eosTokenIds.includes(tokenId);
    if (!isEos && !params.stopTokenIds.includes(tokenId)) continue;
    const expectedFinish: Finish = isEos
      ? { reason: "stop" }
      : { reason: "stop", stopTokenId: tokenId };
    return { expectedTokenIds: tokens.slice(0, i + 1), expectedFinish };
  }
  return { expectedTokenIds: tokens, expectedFinish: { reason: "length" } };
}

/** Why an engine refuses a request. */
import { OverloadedError, RequestError } from "../../core/errors.ts";
import type { GenerateRequest, RequestId } from "../../core/protocol/generate.ts";
import type { EngineConfig } from "./engine_config.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Refuses a request that no engine with this vocabulary could run, and one that the engine has
 * already.
 * @throws {RequestError}
 */
export function checkRequest(
  { requestId, promptTokenIds, outputTokenIds }: GenerateRequest,
  requests: ReadonlyMap<RequestId, unknown>,
  vocabSize: number,
): void {
  if (requests.has(requestId)) {
    throw new RequestError(`Request ${requestId} is being served already.`, "request_id");
  }
  if (promptTokenIds.length === 0) throw new RequestError("The prompt is empty.", "prompt");
  checkTokens(promptTokenIds, vocabSize);
  checkTokens(outputTokenIds, vocabSize);
}

/**
 * Refuses a sequence that cannot be queued.
 * @throws {RequestError} the engine can never run it
 * @throws {OverloadedError} the queue is full
 */
export function checkAdmission(
  sequence: Sequence,
  scheduler: Scheduler,
  { maxWaitingRequests, instanceId }: Pick<EngineConfig, "maxWaitingRequests" | "instanceId">,
): void {
  if (scheduler.admissionOf(sequence) === "never") throw scheduler.neverFits(sequence);
  if (scheduler.waiting.length < maxWaitingRequests) return;
  throw new OverloadedError(
    `${maxWaitingRequests} requests are waiting on ${instanceId}, its limit. Try again later.`,
  );
}

function checkTokens(tokenIds: readonly number[], vocabSize: number): void {
  for (const tokenId of tokenIds) {
    if (Number.isInteger(tokenId) && tokenId >= 0 && tokenId < vocabSize) continue;
    throw new RequestError(
      `Token ${tokenId} is not in the vocabulary: expected integers from 0 to ${vocabSize - 1}.`,
      "prompt",
    );
  }
}

import { canChooseAhead } from "../../executor/sampling/token_request.ts";
import { RequestError } from "../../core/errors.ts";
import type { AllocationStatus, BlockManager } from "./block_manager.ts";
import { PrefillPieces } from "./prefill_pieces.ts";
import type { Sequence } from "./sequence.ts";

export interface SchedulerConfig {
  /** Most sequences that run at once. */
  readonly maxNumSeqs: number;
  /** Most tokens in one step; at least `maxModelLen` and `maxNumSeqs`. */
  readonly maxNumBatchedTokens: number;
  /** Most tokens in a step of several prompts, at most as many. A longer prompt runs alone. */
  readonly maxSharedPrefillTokens: number;
  /** Longest sequence in tokens. */
  readonly maxModelLen: number;
  /** Prompts wait for this many times the latency of the last prefill; 0: they do not wait. */
  readonly schedulerDelayFactor: number;
  /** What happens to the blocks of a preempted sequence. */
  readonly preemptionMode: "recompute" | "swap";
  /**
   * How long a sequence that has run its expected steps waits to move to a decode instance. Then it
   * runs on here: there may be no manager or no destination, and late tokens are better than none.
   */
  readonly prefillHoldMs: number;
  /**
   * Most tokens of a prompt in one step. A longer prompt is computed in pieces, with a decode step of
   * the other sequences between two of them. Infinity: prompts are never cut.
   */
  readonly maxPieceTokens?: number;
}

/** The next step. The scheduler reuses the record and its arrays for every decision. */
export interface Schedule {
  kind: "prefill" | "decode";
  /** The only sequence of the batch has more of its prompt to compute after this step. */
  isPartial: boolean;
  /** Earlier steps have computed a part of the prompt of the only sequence of the batch. */
  isLaterPiece: boolean;
  /** The batch; empty if no sequence can run. */
  readonly sequences: Sequence[];
  /** Tokens that the step computes. */
  numBatchedTokens: number;
  /** Pairs (device block, swap block) to copy before `swapIn` and before the step. */
  readonly swapOut: number[];
  /** Pairs (swap block, device block) to copy before the step. */
  readonly swapIn: number[];
  /** Sequences that were removed from the queues because they can never run. */
  readonly failed: { readonly sequence: Sequence; readonly error: RequestError }[];
  numPreempted: number;
}

/**
 * Continuous batching as in vLLM 0.4.2 (vllm/core/scheduler.py, `_schedule_default`): prompts
 * before decodes and never both in one step, first come first served, swapped sequences before new
 * prompts, preemption of the latest arrival.
 *
 * Differences from vLLM:
 * - Requests of high priority come first, and their prompts share no step with others. Requests of
 *   normal priority are preempted before them, also to make room for a prompt of high priority.
 * - Steps of several prompts may be kept short (`maxSharedPrefillTokens`).
 * - Long prompts may be computed in pieces ({@linkcode PrefillPieces}). Decode steps then alternate
 *   with prompts.
 * - Without swap space a preempted sequence is recomputed; vLLM ends the engine.
 * - A sequence is preempted if it needs a block and none is free; vLLM preempts whenever none is
 *   free.
 * - {@linkcode BlockManager.canAllocate} lets every sequence that fits the pool complete.
 *
 * Synchronous and without a clock: time is passed in. Every queue is in the order of turns: high
 * priority first, then by arrival.
 */
export class Scheduler {
  readonly waiting: Sequence[] = [];
  readonly running: Sequence[] = [];
  readonly swapped: Sequence[] = [];
  /** Sequences about to migrate away. They return to their queue if they cannot. */
  readonly suspended = new Set<Sequence>();
  readonly #config: SchedulerConfig;
  readonly #blocks: BlockManager;
  readonly pieces: PrefillPieces;
  readonly #schedule = emptySchedule();
  /** Places among `maxNumSeqs` kept for sequences that migrate to or from here. */
  #keptPlaces = 0;
  /** The running sequence of which only a part of the prompt is computed. */
  #partial: Sequence | null = null;
  /** The last step computed prompts. */
  #wasPrefill = false;
  /** The last step that computed prompts had a piece of {@linkcode #partial}. */
  #wasPiece = false;
  #previousMs = 0;
  #previousWasPrefill = false;
  #lastPrefillMs = 0;
  #heldUntilMs = Infinity;

  constructor(config: SchedulerConfig, blocks: BlockManager) {
    this.#config = config;
    this.#blocks = blocks;
    this.pieces = new PrefillPieces(config.maxPieceTokens ?? Infinity);
  }

  /** Queues a sequence that has no blocks and has not run here. */
  add(sequence: Sequence): void {
    sequence.status = "waiting";
    insertByTurn(this.waiting, sequence);
  }

  /** Removes a sequence from its queue. Its blocks stay allocated. */
  remove(sequence: Sequence): void {
    if (sequence.status === "suspended") {
      this.suspended.delete(sequence);
      if (sequence.blocks.length > 0) this.#keptPlaces--;
      return;
    }
    if (sequence === this.#partial) this.#partial = null;
    const queue = this.#queueOf(sequence);
    queue.splice(queue.indexOf(sequence), 1);
  }

  /**
   * Takes a waiting sequence, or a running one that is in no step, out of its queue. The sequence
   * keeps its blocks, and its place among the running ones.
   */
  suspend(sequence: Sequence): void {
    this.remove(sequence);
    sequence.status = "suspended";
    this.suspended.add(sequence);
    if (sequence.blocks.length > 0) this.#keptPlaces++;
  }

  /** Puts a suspended sequence back into its queue. */
  resume(sequence: Sequence): void {
    this.remove(sequence);
    if (sequence.blocks.length > 0) this.adopt(sequence);
    else this.add(sequence);
  }

  /** Makes a sequence that has its blocks and a place a running one. */
  adopt(sequence: Sequence): void {
    sequence.status = "running";
    insertByTurn(this.running, sequence);
  }

  /** Keeps a place among `maxNumSeqs` for a sequence to adopt; false if none is left. */
  keepPlace(): boolean {
    if (this.running.length + this.#keptPlaces >= this.#config.maxNumSeqs) return false;
    this.#keptPlaces++;
    return true;
  }

  /** Places kept for sequences that migrate to or from here. */
  get keptPlaces(): number {
    return this.#keptPlaces;
  }

  /** Gives up a kept place, also just before {@linkcode adopt}. */
  giveUpPlace(): void {
    this.#keptPlaces--;
  }

  /**
   * Some free blocks are still to be copied by the next step: the last decision swapped out every
   * running sequence, so that no step ran and made the copies.
   */
  get hasPendingCopies(): boolean {
    return this.#schedule.sequences.length === 0 && this.#schedule.swapOut.length > 0;
  }

  /** Whether a sequence without device blocks can get them. */
  admissionOf(sequence: Sequence): AllocationStatus {
    if (sequence.lengthTokens > this.#config.maxModelLen) return "never";
    return this.#blocks.canAllocate(sequence);
  }

  /** Why a sequence of this length can never run. */
  neverFits(sequence: Sequence): RequestError {
    const { maxModelLen } = this.#config;
    const { totalBlocks, watermarkBlocks, blockSize } = this.#blocks;
    const tokens = sequence.lengthTokens;
    // If the limit is the size of the cache, raising --max-model-len alone does not help.
    if (tokens > maxModelLen && maxModelLen < totalBlocks * blockSize) {
      return new RequestError(
        `The prompt has ${tokens} tokens, the model's limit is ${maxModelLen}. Shorten the prompt ` +
          `or raise --max-model-len.`,
        "prompt",
      );
    }
    const required = this.#blocks.blocksFor(tokens);
    return new RequestError(
      `The sequence has ${tokens} tokens and needs ${required} KV blocks of ${blockSize}; the pool ` +
        `has ${totalBlocks} (new prompts leave ${watermarkBlocks} free). Shorten prompt or output, ` +
        `or give the KV cache more memory (--num-gpu-blocks-override, --gpu-memory-utilization).`,
      "prompt",
    );
  }

  /** When the first of the sequences that are held back runs on here; Infinity if there is none. */
  get heldUntilMs(): number {
    return this.#heldUntilMs;
  }

  /** Decides the next step and takes the blocks for it. The result is valid until the next call. */
  schedule(nowMs: number): Schedule {
    this.#reset();
    const { sequences } = this.#schedule;
    const decodesFirst = this.pieces.areCut && this.#wasPrefill;
    if (decodesFirst) this.#scheduleDecodes(nowMs);
    if (sequences.length === 0 && this.#schedule.numPreempted === 0) {
      this.#scheduleAnyPrefill(nowMs);
    }
    if (sequences.length === 0 && !decodesFirst) this.#scheduleDecodes(nowMs);
    if (sequences.length > 0) this.#wasPrefill = this.#schedule.kind === "prefill";
    return this.#schedule;
  }

  /**
   * Whether the step after `step` can be decided while `step` runs: a decode step of the same sequences, but
   * for those that end with it for certain. Not if something could be decided instead: a request that may be
   * admitted, a sequence that is swapped out or about to move.
   */
  canScheduleAhead(step: Readonly<Schedule>): boolean {
    const { waiting, swapped, suspended, running } = this;
    if (swapped.length + suspended.size + this.#keptPlaces > 0) return false;
    if (waiting.length > 0 && this.#mayAdmit(waiting[0])) return false;
    if (step.kind !== "decode" || step.sequences.length === 0) return false;
    let missingBlocks = 0, numSequences = 0;
    for (const sequence of running) {
      if (!sequence.isInStep || sequence.expectedSteps !== null) return false;
      if (!canChooseAhead(sequence.params)) return false;
      if (this.#endsWithStep(sequence)) {
        if (waiting.length > 0) return false; // its place and its blocks are for the queue
        continue;
      }
      missingBlocks += this.#blocks.missingBlocks(sequence, sequence.numStepsUnderWay);
      numSequences++;
    }
    return numSequences > 0 && missingBlocks <= this.#blocks.freeBlocks;
  }

  /** Takes the blocks for the step after `step`, if {@linkcode canScheduleAhead}; else null. */
  scheduleAhead(step: Readonly<Schedule>): Schedule | null {
    if (!this.canScheduleAhead(step)) return null;
    const sequences = this.running.filter((sequence) => !this.#endsWithStep(sequence));
    for (const sequence of sequences) this.#blocks.append(sequence, sequence.numStepsUnderWay);
    return { ...emptySchedule(), sequences, numBatchedTokens: sequences.length };
  }

  /** Whether the next decision may admit the head of the queue, or refuse it. */
  #mayAdmit(head: Sequence): boolean {
    const last = this.running.at(-1);
    if (last !== undefined && head.outranks(last)) return true;
    return this.#hasPlace(this.running.length + 1) && this.admissionOf(head) !== "later";
  }

  /** Whether the steps under way give the sequence its last token, whatever it is. */
  #endsWithStep({ params, outputTokenIds, lengthTokens, numStepsUnderWay }: Sequence): boolean {
    return outputTokenIds.length + numStepsUnderWay >= params.maxTokens ||
      lengthTokens + numStepsUnderWay >= this.#config.maxModelLen;
  }

  /** Tokens of prompts that have begun to be computed in pieces and are still missing. */
  get partialTokens(): number {
    return this.#partial === null
      ? 0
      : this.#partial.lengthTokens - this.#partial.numComputedTokens;
  }

  #scheduleDecodes(nowMs: number): void {
    this.#scheduleRunning(nowMs);
    if (this.#schedule.numPreempted === 0) this.#scheduleSwapped();
  }

  /** Pieces of a long prompt take turns with the prompts that come meanwhile and fit one step. */
  #scheduleAnyPrefill(nowMs: number): void {
    if (this.#partial === null || this.#wasPiece) {
      this.#schedulePrefills(nowMs);
      this.#wasPiece = this.#schedule.isPartial;
    }
    if (this.#partial === null || this.#schedule.sequences.length > 0) return;
    this.#schedulePiece(this.#partial);
    this.#wasPiece = true;
  }

  /** Runs the next piece of a prompt, as long as the time of the others allows. */
  #schedulePiece(sequence: Sequence): void {
    const missing = sequence.lengthTokens - sequence.numComputedTokens;
    const isLater = sequence.numComputedTokens > 0;
    if (!isLater) this.pieces.begin();
    const tokens = Math.min(missing, this.pieces.maxTokens(this.running.length > 1, isLater));
    this.#schedule.kind = "prefill";
    this.#schedule.isLaterPiece = isLater;
    this.#schedule.isPartial = tokens < missing;
    this.#partial = tokens < missing ? sequence : null;
    sequence.isPrefilling = tokens < missing;
    this.#run(sequence, tokens);
  }

  #reset(): void {
    const schedule = this.#schedule;
    // Copies of a decision without a step were not made: they stay for the next step.
    if (schedule.sequences.length > 0) {
      clear(schedule.swapOut);
      clear(schedule.swapIn);
    }
    schedule.kind = "decode";
    schedule.isPartial = false;
    schedule.isLaterPiece = false;
    clear(schedule.sequences);
    schedule.numBatchedTokens = 0;
    clear(schedule.failed);
    schedule.numPreempted = 0;
    this.#heldUntilMs = Infinity;
  }

  #schedulePrefills(nowMs: number): void {
    const { waiting, running, swapped } = this;
    if (!this.#delayHasPassed(nowMs)) return;
    const maxTokens = this.pieces.maxTokens(running.length > (this.#partial === null ? 0 : 1));
    while (waiting.length > 0) {
      const sequence = waiting[0];
      if (swapped.length > 0 && !sequence.outranks(swapped[0])) break;
      const promptTokens = sequence.lengthTokens;
      sequence.wasTried = true;
      const admission = this.admissionOf(sequence);
      if (admission === "never") {
        this.#fail(waiting, sequence);
        continue;
      }
      this.#dropOutrankedPartial(sequence, maxTokens);
      if (!this.#sharesPrefill(sequence, maxTokens)) break;
      const isAdmitted = admission === "yes" && this.#hasPlace(running.length + 1);
      if (!isAdmitted && !this.#makeRoomFor(sequence)) break;
      waiting.shift();
      this.#blocks.allocate(sequence);
      insertByTurn(running, sequence);
      if (promptTokens > maxTokens) {
        this.#schedulePiece(sequence);
        break;
      }
      this.#run(sequence, promptTokens);
    }
    if (this.#schedule.sequences.length > 0) {
      this.#schedule.kind = "prefill";
      this.#previousWasPrefill = true;
    }
  }

  /** A long prompt of high priority does not wait for the pieces of a normal one, which begins anew. */
  #dropOutrankedPartial(sequence: Sequence, maxTokens: number): void {
    const partial = this.#partial;
    if (partial === null || sequence.lengthTokens <= maxTokens) return;
    if (!sequence.outranks(partial)) return;
    this.running.splice(this.running.indexOf(partial), 1);
    this.#preempt(partial);
  }

  /**
   * Preempts running sequences that the head of the queue outranks, the latest first: as many as it
   * takes, or none if all of them together are not enough.
   * @returns whether the head can run now. It cannot while transfers still read the blocks given
   *   up.
   */
  #makeRoomFor(sequence: Sequence): boolean {
    const { running } = this;
    let givenUpBlocks = 0;
    for (let kept = running.length - 1; kept >= 0 && sequence.outranks(running[kept]); kept--) {
      givenUpBlocks += running[kept].blocks.length;
      if (this.#blocks.canAllocate(sequence, givenUpBlocks) !== "yes") continue;
      if (!this.#hasPlace(kept + 1)) continue;
      while (running.length > kept) this.#preempt(running.pop()!);
      return this.#blocks.canAllocate(sequence) === "yes";
    }
    return false;
  }

  #scheduleRunning(nowMs: number): void {
    const { running } = this;
    for (let i = 0; i < running.length; i++) {
      const sequence = running[i];
      if (sequence.isPrefilling || this.#isHeld(sequence, nowMs)) continue;
      while (!this.#blocks.canAppend(sequence)) {
        const victim = running.pop()!;
        this.#preempt(victim);
        if (victim === sequence) return;
      }
      this.#blocks.append(sequence);
      this.#run(sequence, 1);
    }
  }

  /** Whether a running sequence is skipped because it waits to move; it keeps its blocks. */
  #isHeld(sequence: Sequence, nowMs: number): boolean {
    if (!sequence.isHeld) return false;
    sequence.heldSinceMs ??= nowMs;
    const untilMs = sequence.heldSinceMs + this.#config.prefillHoldMs;
    if (nowMs >= untilMs) {
      sequence.hasHoldExpired = true;
      return false;
    }
    this.#heldUntilMs = Math.min(this.#heldUntilMs, untilMs);
    return true;
  }

  #scheduleSwapped(): void {
    const { swapped, running } = this;
    while (swapped.length > 0) {
      const sequence = swapped[0];
      const admission = this.admissionOf(sequence);
      if (admission === "later") break;
      if (admission === "never") {
        this.#fail(swapped, sequence);
        continue;
      }
      const { numBatchedTokens } = this.#schedule;
      if (numBatchedTokens >= this.#config.maxNumBatchedTokens) break;
      if (!this.#hasPlace(running.length + 1)) break;
      swapped.shift();
      this.#blocks.swapIn(sequence, this.#schedule.swapIn);
      this.#run(sequence, 1);
      insertByTurn(running, sequence);
    }
  }

  #run(sequence: Sequence, newTokens: number): void {
    sequence.status = "running";
    sequence.isPreempted = false;
    this.#schedule.sequences.push(sequence);
    this.#schedule.numBatchedTokens += newTokens;
  }

  #preempt(victim: Sequence): void {
    victim.isPreempted = true;
    victim.numPreemptions++;
    victim.onLoss?.();
    this.#schedule.numPreempted++;
    const isPartial = victim.isPrefilling;
    if (isPartial) this.#partial = null;
    victim.isPrefilling = false;
    const canSwap = this.#config.preemptionMode === "swap" && !isPartial;
    if (canSwap && this.#blocks.canSwapOut(victim)) {
      this.#blocks.swapOut(victim, this.#schedule.swapOut);
      victim.status = "swapped";
      insertByTurn(this.swapped, victim);
    } else {
      this.#blocks.free(victim);
      victim.status = "waiting";
      insertByTurn(this.waiting, victim);
    }
  }

  #fail(queue: Sequence[], sequence: Sequence): void {
    queue.shift();
    this.#blocks.free(sequence);
    sequence.status = "finished";
    this.#schedule.failed.push({ sequence, error: this.neverFits(sequence) });
  }

  /** Whether a prompt may join the step being built: not if the step has one of higher priority. */
  #sharesPrefill(sequence: Sequence, maxTokens: number): boolean {
    const { sequences, numBatchedTokens } = this.#schedule;
    const { maxNumBatchedTokens, maxSharedPrefillTokens } = this.#config;
    const limit = sequences.length === 0
      ? maxNumBatchedTokens
      : Math.min(maxSharedPrefillTokens, maxTokens);
    if (sequences.length > 0 && sequences[0].outranks(sequence)) return false;
    if (this.#partial !== null && sequence.lengthTokens > maxTokens) return false;
    return numBatchedTokens + sequence.lengthTokens <= limit;
  }

  /** Whether this many sequences may run. */
  #hasPlace(numSeqs: number): boolean {
    return numSeqs + this.#keptPlaces <= this.#config.maxNumSeqs;
  }

  /** vLLM's `_passed_delay`: lets the queue fill up while other sequences run. */
  #delayHasPassed(nowMs: number): boolean {
    if (this.#previousWasPrefill) this.#lastPrefillMs = nowMs - this.#previousMs;
    this.#previousMs = nowMs;
    this.#previousWasPrefill = false;
    if (this.#config.schedulerDelayFactor === 0) return true;
    if (this.waiting.length === 0 || this.running.every((one) => this.#isHeld(one, nowMs))) {
      return true;
    }
    const waitedMs = nowMs - this.waiting[0].arrivalMs;
    return waitedMs > this.#config.schedulerDelayFactor * this.#lastPrefillMs;
  }

  #queueOf(sequence: Sequence): Sequence[] {
    switch (sequence.status) {
      case "waiting":
        return this.waiting;
      case "running":
        return this.running;
      case "swapped":
        return this.swapped;
      default:
        throw new Error(`request ${sequence.requestId} is in no queue of the scheduler any more`);
    }
  }
}

function emptySchedule(): Schedule {
  return {
    ...{ kind: "decode", isPartial: false, isLaterPiece: false },
    ...{ sequences: [], numBatchedTokens: 0 },
    ...{ swapOut: [], swapIn: [], failed: [], numPreempted: 0 },
  };
}

/** Most arrays are empty already, and setting their length anyway costs 2% of a simulation. */
function clear(array: unknown[]): void {
  if (array.length > 0) array.length = 0;
}

function insertByTurn(queue: Sequence[], sequence: Sequence): void {
  let position = queue.length;
  while (position > 0 && queue[position - 1].compareTurn(sequence) > 0) position--;
  if (position === queue.length) queue.push(sequence);
  else queue.splice(position, 0, sequence);
}

import { blockBytes } from "../../kv/layout.ts";
import { AccountedKvPool } from "../../kv/pool/accounted_kv_pool.ts";
import type { KvPool } from "../../kv/pool/pool.ts";
import { modelIdentity } from "../../model/locate.ts";
import type { Executor, ExecutorInfo, StepInput, StepOutput } from "../executor.ts";
import { SEEDED_VOCAB_SIZE, SeededSampler } from "../sampling/seeded_sampler.ts";
import { decodeMs, prefillMs, transferMs } from "./profile.ts";
import type { Simulation } from "./simulation.ts";

export interface SimExecutorArgs {
  readonly simulation: Simulation;
  /** Steps run so many times faster than the profile says. */
  readonly speedup: number;
  /** Resolves after that many milliseconds, real or virtual. */
  readonly wait: (delayMs: number) => Promise<void>;
}

/**
 * Simulates a device: a step takes the time that a latency profile says, and each token is a function of
 * the request's seed and the token's position. Blocks are counted and hold nothing.
 */
export class SimExecutor implements Executor {
  readonly info: ExecutorInfo;
  readonly pool: KvPool;
  readonly #args: SimExecutorArgs;
  readonly #blockBytes: number;
  readonly #sampler = new SeededSampler();
  #isClosed = false;

  constructor(args: SimExecutorArgs) {
    const { simulation, speedup } = args;
    const { device, profile, model, layout, numBlocks, numSwapBlocks, maxModelLen } = simulation;
    this.#args = args;
    this.#blockBytes = blockBytes(layout);
    this.info = {
      description: `sim (${device}${speedup === 1 ? "" : `, ${speedup} times faster`})`,
      model: modelIdentity(model),
      dtype: layout.dtype,
      vocabSize: SEEDED_VOCAB_SIZE,
      maxModelLen,
      layout,
      numBlocks,
      numSwapBlocks,
      hasNoCache: true,
      maxPieceTokens: profile.maxPieceTokens,
      migrationBytesPerMs: profile.migration.gbps * 1e6 * speedup,
    };
    this.pool = new AccountedKvPool(layout, numBlocks);
  }

  async step(input: StepInput): Promise<StepOutput> {
    const output = this.compute(input);
    await this.#args.wait(output.latencyMs);
    return output;
  }

  /** The output of a step, without waiting; `latencyMs` is the time that {@linkcode step} waits. */
  compute(input: StepInput): StepOutput {
    if (this.#isClosed) throw new Error("the simulated executor is closed");
    const output = this.#sampler.sample(input, this.#latencyMs(input) / this.#args.speedup);
    if (input.isPartial) output.tokenIds[0] = -1;
    return output;
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#sampler.clear();
    return Promise.resolve();
  }

  /** Block copies take their time before the step, one after the other. */
  #latencyMs({ kind, handles, queryStarts, contextLens, swapOut, swapIn }: StepInput): number {
    const { profile } = this.#args.simulation;
    const numCopies = (swapOut.length + swapIn.length) / 2;
    const copyMs = transferMs(profile.swap, numCopies * this.#blockBytes);
    const batch = handles.length;
    if (kind === "prefill") {
      let squares = 0;
      for (let i = 0; i < batch; i++) {
        const known = contextLens[i] - (queryStarts[i + 1] - queryStarts[i]);
        squares += contextLens[i] ** 2 - known ** 2;
      }
      return copyMs + prefillMs(profile, queryStarts[batch], squares);
    }
    let totalTokens = 0;
    for (let i = 0; i < batch; i++) totalTokens += contextLens[i];
    return copyMs + decodeMs(profile, batch, totalTokens);
  }
}

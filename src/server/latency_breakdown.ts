import type { TextOutput } from "../frontend/service.ts";

/**
 * What of each token's latency passed where, in milliseconds, by Llumnix's names. Its hops between
 * threads and actors of an instance do not exist here. A hop between two processes is measured by
 * two clocks: between hosts it has their difference in it.
 */
export class LatencyBreakdown {
  readonly #hops = {
    /** The engine step. */
    step_latency_engine: [] as number[],
    /** From the step's result to the instance's connection. */
    step_postprocess_latency: [] as number[],
    /** From the instance to the API server. */
    queue_rpc_latency: [] as number[],
    /** Until the tokens are text. */
    background_process_get_queue_latency: [] as number[],
    /** Until the route has it. */
    generate_benchmark_return_output_latency: [] as number[],
  };

  /** @param nowMs when the route got the output */
  add({ timing, timesMs = [] }: TextOutput, nowMs: number): void {
    if (timing === undefined) return;
    const { stepMs, steppedMs, sentMs = steppedMs, receivedMs = sentMs } = timing;
    for (const textMs of timesMs) {
      this.#hops.step_latency_engine.push(stepMs);
      this.#hops.step_postprocess_latency.push(sentMs - steppedMs);
      this.#hops.queue_rpc_latency.push(receivedMs - sentMs);
      this.#hops.background_process_get_queue_latency.push(textMs - receivedMs);
      this.#hops.generate_benchmark_return_output_latency.push(nowMs - textMs);
    }
  }

  toJSON(): Readonly<Record<string, readonly number[]>> {
    return this.#hops;
  }
}

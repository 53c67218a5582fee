import type { TextOutput } from "../frontend/service.ts";

/**
 * What of each token's latency passed where, in milliseconds, by Llumnix's names: always all eight of them,
 * which its benchmark client reads. A hop between two processes is measured by two clocks: between hosts it
 * has their difference in it.
 */
export class LatencyBreakdown {
  readonly #hops = {
    /** The engine step. */
    step_latency_engine: [] as number[],
    /** Always 0: the model's outputs are processed in what `step_postprocess_latency` measures. */
    process_model_outputs_latency: [] as number[],
    /** From the step's result to the instance's connection. */
    step_postprocess_latency: [] as number[],
    /** Always 0: no other thread hands outputs on. */
    across_async_put_queue_thread_latency: [] as number[],
    /** Always 0: no actor hands outputs on. */
    across_async_put_queue_actor_latency: [] as number[],
    /** From the instance to the API server. */
    queue_rpc_latency: [] as number[],
    /** Until the tokens are text. */
    background_process_get_queue_latency: [] as number[],
    /** Until the route has it. */
    generate_benchmark_return_output_latency: [] as number[],
  };

  /**
   * Adds the tokens of an output, unless it has no timing: then the lists stay empty.
   * @param nowMs when the route got the output
   */
  add({ timing, timesMs = [] }: TextOutput, nowMs: number): void {
    if (timing === undefined) return;
    const { stepMs, steppedMs, sentMs = steppedMs, receivedMs = sentMs } = timing;
    for (const textMs of timesMs) {
      this.#hops.step_latency_engine.push(stepMs);
      this.#hops.process_model_outputs_latency.push(0);
      this.#hops.step_postprocess_latency.push(sentMs - steppedMs);
      this.#hops.across_async_put_queue_thread_latency.push(0);
      this.#hops.across_async_put_queue_actor_latency.push(0);
      this.#hops.queue_rpc_latency.push(receivedMs - sentMs);
      this.#hops.background_process_get_queue_latency.push(textMs - receivedMs);
      this.#hops.generate_benchmark_return_output_latency.push(nowMs - textMs);
    }
  }

  toJSON(): Readonly<Record<string, readonly number[]>> {
    return this.#hops;
  }
}

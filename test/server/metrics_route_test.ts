import assert from "node:assert/strict";
import type { ClusterMonitor } from "../../src/core/cluster.ts";
import { errorKinds, UnavailableError } from "../../src/core/errors.ts";
import { clusterState, instanceLoad } from "../metrics/cluster_state.ts";
import { until as patiently } from "../patience.ts";
import { until, withServer } from "./harness.ts";

const events: ClusterMonitor["events"] = () => Promise.reject(new UnavailableError("no manager"));

/** The value of a sample, by its name with labels. */
function valueOf(text: string, sample: string): number {
  const line = text.split("\n").find((one) => one.startsWith(`${sample} `));
  assert.ok(line, `no ${sample} in\n${text}`);
  return Number(line.slice(sample.length + 1));
}

Deno.test("/metrics has requests, instances and the process, as Prometheus reads them", () => {
  const monitor: ClusterMonitor = {
    events,
    state: () => Promise.resolve(clusterState([instanceLoad("instance-0")])),
  };
  return withServer({ monitor }, async ({ url, post }) => {
    await post("/v1/completions", { prompt: "four", model: "fake", max_tokens: 3 });
    await post("/v1/completions", { prompt: "a", model: "fake", max_tokens: -1 });
    const answer = await fetch(`${url}/metrics`);
    assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    const text = await answer.text();
    const model = `model_name="fake"`;
    assert.equal(valueOf(text, `vllm:prompt_tokens_total{${model}}`), 4);
    assert.equal(valueOf(text, `vllm:generation_tokens_total{${model}}`), 3);
    assert.equal(valueOf(text, `vllm:time_to_first_token_seconds_count{${model}}`), 1);
    assert.equal(valueOf(text, `vllm:e2e_request_latency_seconds_count{${model}}`), 1);
    const running = `vllm:num_requests_running{${model},instance_id="instance-0"}`;
    assert.equal(valueOf(text, running), 2);
    assert.equal(valueOf(text, "llumnix:manager_up"), 1);
    assert.equal(valueOf(text, `llumnix:api_server_requests{${model}}`), 0);
    assert.ok(valueOf(text, `process_resident_memory_bytes{role="server"}`) > 1e6);
  });
});

Deno.test("/metrics goes on without a manager, and says so", () => {
  const state = () => Promise.reject(new UnavailableError("the manager is gone"));
  return withServer({ monitor: { events, state } }, async ({ url }) => {
    const text = await (await fetch(`${url}/metrics`)).text();
    assert.equal(valueOf(text, "llumnix:manager_up"), 0);
    assert.ok(!text.includes("vllm:num_requests_running"), text);
    assert.ok(text.includes("vllm:time_to_first_token_seconds_count"), text);
  });
});

Deno.test("/metrics: many readers at once cost one look at the cluster", () => {
  let looks = 0;
  const monitor: ClusterMonitor = {
    events,
    state: () => {
      looks++;
      return Promise.resolve(clusterState([]));
    },
  };
  return withServer({ monitor }, async ({ url }) => {
    const startMs = performance.now();
    const answers = await Promise.all(Array.from({ length: 50 }, () => fetch(`${url}/metrics`)));
    const texts = await Promise.all(answers.map((answer) => answer.text()));
    assert.ok(texts.every((text) => text.includes("llumnix:manager_up 1")));
    const most = 1 + Math.ceil((performance.now() - startMs) / 500); // one every half second
    assert.ok(looks <= most, `${looks} looks, at most ${most}`);
  });
});

Deno.test("/metrics counts what is refused, by kind of error", () =>
  withServer({ options: { maxQueuedRequests: 1 } }, async ({ url, post, service }) => {
    service.generate = () => {}; // never ends
    const running = new AbortController();
    const body = JSON.stringify({ prompt: "a", model: "fake" });
    const headers = { "content-type": "application/json" };
    const { signal } = running;
    const metrics = async () => await (await fetch(`${url}/metrics`)).text();
    const refused = `llumnix:failed_requests_total{model_name="fake",kind="overloaded"}`;
    // Prometheus sees no increase in a counter that begins with 1.
    const atStart = await metrics();
    for (const kind of errorKinds) {
      assert.equal(valueOf(atStart, refused.replace("overloaded", kind)), 0, kind);
    }
    const first = fetch(`${url}/v1/completions`, { method: "POST", headers, body, signal });
    await until(() => service.requests.length > 0);
    assert.equal((await post("/v1/completions", { prompt: "b", model: "fake" })).status, 429);
    running.abort();
    await assert.rejects(first);
    await patiently(async () => valueOf(await metrics(), refused) === 1, "it was counted");
  }));

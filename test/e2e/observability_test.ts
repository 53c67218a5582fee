/** What a service shows of itself: metrics for a real Prometheus, traces for a collector, JSON logs. */
import assert from "node:assert/strict";
import { testWith } from "../metrics/prometheus.ts";
import { OtlpSink } from "../metrics/tracing/sink.ts";
import { freePort } from "../free_port.ts";
import { Program, type Server, startServer } from "./harness.ts";

const TOKEN = "e2e-token";
const simulated =
  "--device sim --model llama-7b --speedup 5 --initial-instances 2 --enable-migration".split(" ");
const headers = { "content-type": "application/json", authorization: `Bearer ${TOKEN}` };

// deno-lint-ignore no-explicit-any
type Json = any;

/** A request that runs until its client leaves. @returns what leaves */
function startRequest(url: string, more: HeadersInit = {}): () => Promise<void> {
  const client = new AbortController();
  const answer = fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { ...headers, ...more },
    body: JSON.stringify({ prompt: "a secret prompt", max_tokens: 10_000, ignore_eos: true }),
    signal: client.signal,
  });
  return async () => {
    client.abort();
    await assert.rejects(answer, { name: "AbortError" });
  };
}

async function complete(url: string, maxTokens: number): Promise<void> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers,
    body: JSON.stringify({ prompt: "hello", max_tokens: maxTokens, ignore_eos: true }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** Moves the one running request to the other instance. @returns the answer */
async function moveRunning({ program, url }: Server): Promise<Json> {
  let running: Json;
  await program.waitUntil("the request ran", async () => {
    const { requests } = await (await fetch(`${url}/admin/requests`, { headers })).json();
    running = requests[0];
    return running?.output_tokens > 0;
  });
  const instance = running.instance === "instance-0" ? "instance-1" : "instance-0";
  const moved = await fetch(`${url}/admin/requests/${running.id}/migrate`, {
    method: "POST",
    headers,
    body: JSON.stringify({ instance }),
  });
  const json = await moved.json();
  assert.equal(moved.status, 200, JSON.stringify(json));
  return json;
}

Deno.test("a request that moves is one trace, and every log record is a JSON object", async () => {
  await using sink = new OtlpSink();
  const options = ["--otlp-traces-endpoint", sink.endpoint, "--log-format", "json"];
  const args = [...simulated, ...options, "--admin-token", TOKEN];
  await using server = await startServer(args);
  const traceId = "0af7651916cd43dd8448eb211c80319c", parentId = "b7ad6b7169203331";
  const leave = startRequest(server.url, { traceparent: `00-${traceId}-${parentId}-01` });
  const { from, to } = await moveRunning(server);
  await leave();
  const isThere = (name: string) => sink.spans.some((span) => span.name === name);
  await server.program.waitUntil("the spans came", () => isThere("migration"));

  const names = sink.spans.map(({ name }) => name).sort();
  const expected = ["decode", "migration", "prefill", "queue", "text_completion llama-7b"];
  assert.deepEqual([...new Set(names)], expected);
  const root = sink.spans.find(({ name }) => name.startsWith("text_completion"))!;
  assert.equal(root.parentSpanId, parentId);
  assert.ok(Number(root.attributes["gen_ai.usage.output_tokens"]) > 0, JSON.stringify(root));
  for (const span of sink.spans) {
    assert.equal(span.traceId, traceId, span.name);
    if (span !== root) assert.equal(span.parentSpanId, root.spanId, span.name);
    assert.ok(span.endMs >= span.startMs, span.name);
  }
  const moves = sink.spans.filter(({ name, attributes }) =>
    name === "migration" && attributes["llumnix.migration.outcome"] === "committed"
  );
  assert.ok(
    moves.some(({ attributes }) =>
      attributes["llumnix.migration.source"] === from &&
      attributes["llumnix.migration.destination"] === to
    ),
    JSON.stringify(moves),
  );
  assert.ok(!sink.text.includes("secret"), sink.text);

  await server.program.stopWell();
  const lines = server.program.stderr.split("\n").filter((line) => line.startsWith("{"));
  const records = lines.map((line) => JSON.parse(line));
  assert.ok(records.every(({ time, level, component }) => time && level && component), lines[0]);
  const request = records.find(({ message, path }) =>
    message === "request" && path === "/v1/completions"
  );
  assert.deepEqual([request.client, request.method, request.status], ["127.0.0.1", "POST", 499]);
  const others = server.program.stderr.split("\n").filter((line) => !/^(\{|$)/.test(line));
  assert.deepEqual(others, []);
});

testWith("prometheus", "a real Prometheus scrapes a service", async (program) => {
  await using server = await startServer([...simulated, "--admin-token", TOKEN]);
  const leave = startRequest(server.url);
  await moveRunning(server);
  await leave();
  await complete(server.url, 30);
  const port = freePort();
  const directory = server.program.directory;
  const target = server.url.replace("http://", "");
  await Deno.writeTextFile(
    `${directory}/prometheus.yml`,
    `scrape_configs: [{job_name: llumnix, scrape_interval: 1s, static_configs: [{targets: ["${target}"]}]}]`,
  );
  await using prometheus = new Program([
    `--config.file=${directory}/prometheus.yml`,
    `--storage.tsdb.path=${directory}/data`,
    `--web.listen-address=127.0.0.1:${port}`,
  ], { command: [program] });
  const query = async (expr: string): Promise<[labels: Json, value: string][]> => {
    try {
      const at = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expr)}`;
      const { data } = await (await fetch(at)).json();
      return data.result.map(({ metric, value }: Json) => [metric, value[1]]);
    } catch {
      return []; // it starts
    }
  };
  const one = async (expr: string) => {
    const result = await query(expr);
    assert.equal(result.length, 1, `${expr}: ${JSON.stringify(result)}`);
    return Number(result[0][1]);
  };
  await prometheus.waitUntil("it had scraped", async () => (await query("up == 1")).length === 1);
  assert.ok(await one("vllm:generation_tokens_total") > 30);
  assert.equal(await one("vllm:request_generation_tokens_sum"), 30);
  assert.equal(await one('vllm:request_success_total{finished_reason="length"}'), 1);
  assert.equal(await one("count(vllm:num_requests_running)"), 2);
  assert.ok(await one('sum(llumnix:migrations_total{outcome="committed"})') >= 1);
  assert.ok(await one("sum(llumnix:migrated_bytes_total)") > 0);
  assert.ok(await one("sum(llumnix:migration_downtime_seconds_count)") >= 1);
  assert.ok(await one("scrape_samples_scraped") > 300);
  const ttft = "histogram_quantile(0.5, sum by (le) (vllm:time_to_first_token_seconds_bucket))";
  const median = await one(ttft);
  assert.ok(median > 0 && median < 60, `${median}`);
  await prometheus.stop();
});

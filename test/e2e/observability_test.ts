/** What a service shows of itself: metrics for a real Prometheus, traces for a collector, JSON logs. */
import assert from "node:assert/strict";
import { load } from "js-yaml";
import { alertRules } from "../../src/metrics/alerts.ts";
import { dashboard } from "../../src/metrics/dashboard.ts";
import { PATIENCE_MS } from "../patience.ts";
import { testWith } from "../metrics/prometheus.ts";
import { OtlpSink } from "../metrics/tracing/sink.ts";
import { freePort } from "../free_port.ts";
import { Program, type Server, startServer } from "./harness.ts";

const TOKEN = "e2e-token";
const simulatedAt = (speedup: number) => [
  ...["--device", "sim", "--model", "llama-7b", "--speedup", `${speedup}`],
  ...["--initial-instances", "2", "--enable-migration"],
];
const simulated = simulatedAt(5);
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

/** A Prometheus that scrapes a service every second, and evaluates the alert rules as often. */
class ScrapingPrometheus extends Program {
  readonly #url: string;

  /** @param program path of Prometheus @param directory for its files */
  static async start(program: string, directory: string, url: string): Promise<ScrapingPrometheus> {
    const target = url.replace("http://", "");
    await Deno.writeTextFile(`${directory}/alerts.yml`, await alertRules());
    await Deno.writeTextFile(
      `${directory}/prometheus.yml`,
      JSON.stringify({
        global: { scrape_interval: "1s", evaluation_interval: "1s" },
        rule_files: [`${directory}/alerts.yml`],
        scrape_configs: [{ job_name: "llumnix", static_configs: [{ targets: [target] }] }],
      }),
    );
    const prometheus = new ScrapingPrometheus(program, directory, freePort());
    await prometheus.waitUntil(
      "it had scraped",
      async () => (await prometheus.query("up == 1")).length === 1,
    );
    return prometheus;
  }

  private constructor(program: string, directory: string, port: number) {
    super([
      `--config.file=${directory}/prometheus.yml`,
      `--storage.tsdb.path=${directory}/data`,
      `--web.listen-address=127.0.0.1:${port}`,
    ], { command: [program] });
    this.#url = `http://127.0.0.1:${port}/api/v1`;
  }

  /** Samples of an instant query; none while it starts. @throws a query that it cannot read */
  async query(expr: string): Promise<[labels: Json, value: string][]> {
    const answer = await fetch(`${this.#url}/query?query=${encodeURIComponent(expr)}`)
      .catch(() => null);
    if (answer === null || answer.status === 503) {
      await answer?.body?.cancel();
      return [];
    }
    const { status, error, data } = await answer.json();
    assert.equal(status, "success", `${expr}: ${error}`);
    return data.result.map(({ metric, value }: Json) => [metric, value[1]]);
  }

  /** The alert rules, with the outcome of their last evaluation. */
  async rules(): Promise<readonly { readonly name: string; readonly health: string }[]> {
    const { data } = await (await fetch(`${this.#url}/rules`)).json();
    return data.groups.flatMap(({ rules }: Json) => rules);
  }
}

/** The one value of a query. */
async function valueOf(prometheus: ScrapingPrometheus, expr: string): Promise<number> {
  const result = await prometheus.query(expr);
  assert.equal(result.length, 1, `${expr}: ${JSON.stringify(result)}`);
  return Number(result[0][1]);
}

testWith("prometheus", "a real Prometheus scrapes a service", async (program) => {
  await using server = await startServer([...simulated, "--admin-token", TOKEN]);
  const leave = startRequest(server.url);
  await moveRunning(server);
  await leave();
  await complete(server.url, 30);
  await using prometheus = await ScrapingPrometheus.start(
    program,
    server.program.directory,
    server.url,
  );
  const one = (expr: string) => valueOf(prometheus, expr);
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

/** What Grafana puts into the queries of the dashboard, for a scrape each second. */
function filledIn(query: string): string {
  return query.replaceAll("$__rate_interval", "5s").replaceAll(/\$(job|server)\b/g, ".*");
}

/** What an alert compares with its threshold. */
const measured = (expr: string) => expr.split(/ (?:==|>=|>) /)[0];

testWith(
  "prometheus",
  "Prometheus has data for each query of the dashboard and of the alerts",
  async (program) => {
    // At this speed the request that moves does not end meanwhile.
    await using server = await startServer([...simulatedAt(1), "--admin-token", TOKEN]);
    const stop = new AbortController();
    const leave = startRequest(server.url, { "x-request-priority": "high" });
    const busy = keepBusy(server, stop.signal);
    await using prometheus = await ScrapingPrometheus.start(
      program,
      server.program.directory,
      server.url,
    );
    try {
      const { groups: [{ rules }] } = load(await alertRules()) as {
        readonly groups: [{ readonly rules: readonly { readonly expr: string }[] }];
      };
      const panels = dashboard().panels as readonly {
        readonly targets: readonly { readonly expr: string }[];
      }[];
      const queries = panels.flatMap(({ targets }) => targets.map(({ expr }) => filledIn(expr)));
      const left = new Set([...queries, ...rules.map(({ expr }) => measured(expr))]);
      assert.ok(left.size > 40, `${left.size} queries`);
      const deadlineMs = performance.now() + PATIENCE_MS;
      while (left.size > 0 && performance.now() < deadlineMs) {
        for (const expr of left) {
          const samples = await prometheus.query(expr);
          if (samples.some(([, value]) => Number.isFinite(Number(value)))) left.delete(expr);
        }
      }
      assert.deepEqual([...left], [], "queries without data");
      const evaluated = await prometheus.rules();
      assert.deepEqual(
        evaluated.filter(({ health }) => health !== "ok"),
        [],
      );
      assert.equal(evaluated.length, rules.length);
    } finally {
      stop.abort();
      await busy;
      await leave();
    }
    await prometheus.stop();
  },
);

/** Moves the one running request to and fro, ends others, and lets some be refused. */
async function keepBusy(server: Server, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await moveRunning(server);
    await complete(server.url, 5);
    const refused = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers,
      body: JSON.stringify({ prompt: "hello", max_tokens: -1 }),
    });
    await refused.body?.cancel();
    assert.equal(refused.status, 400);
  }
}

/** `llumnix bench` against a server of known latencies. */
import assert from "node:assert/strict";
import { FakeServer } from "../../../scripts/bench/fake_server.ts";
import { main } from "../../../src/cli/main.ts";

const ttftMs = 60, tpotMs = 20, tokens = 10;

interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(...argv: string[]): Promise<Run> {
  const { log, error } = console;
  const out: string[] = [], err: string[] = [];
  console.log = (text: string) => void out.push(text);
  console.error = (text: string) => void err.push(text);
  try {
    const code = await main(["bench", "--disable-tqdm", ...argv]);
    return { code, out: out.join("\n"), err: err.join("\n") };
  } finally {
    Object.assign(console, { log, error });
  }
}

const load = ["--num-prompts", "20", "--request-rate", "50", "--burstiness", "inf"];
const lengths = ["--random-input-len", "12", "--random-output-len", `${tokens}`];

Deno.test("figures agree with what the server did, and files are written", async () => {
  await using server = new FakeServer({ ttftMs, tpotMs });
  const directory = await Deno.makeTempDir();
  try {
    const file = (name: string) => `${directory}/${name}`;
    const { code, out, err } = await run(
      ...["--port", `${server.port}`, ...load, ...lengths, "--num-warmups", "2"],
      ...["--save-result", "--save-detailed", "--result-dir", directory],
      ...["--result-filename", "result.json", "--csv", file("a.csv"), "--html", file("a.html")],
    );
    assert.equal(code, 0, `${out}\n${err}`);
    assert.match(out, /Successful requests: +20\n/);
    assert.match(out, /Total input tokens: +240\n/);
    const json = JSON.parse(await Deno.readTextFile(file("result.json")));
    const truth = server.truths.slice(2); // without the requests that warmed up
    assert.equal(truth.length, 20);
    // A client sees a token after it was written. Timers are late, never early.
    const least = Math.min(...truth.map((one) => one.ttftMs));
    assert.ok(least >= ttftMs - 1, `the server took ${least} ms`);
    const medianOf = (values: number[]) => values.sort((a, b) => a - b)[values.length / 2];
    const trueTtft = medianOf(truth.map((one) => one.ttftMs));
    const trueTpot = medianOf(truth.map((one) => (one.e2eMs - one.ttftMs) / (tokens - 1)));
    const near = (value: number, real: number) => Math.abs(value - real) < 3000;
    assert.ok(json.median_ttft_ms >= ttftMs - 1 && near(json.median_ttft_ms, trueTtft), out);
    assert.ok(near(json.median_tpot_ms, trueTpot), out);
    assert.deepEqual(json.output_lens, Array(20).fill(tokens));
    assert.equal((await Deno.readTextFile(file("a.csv"))).trimEnd().split("\n").length, 21);
    assert.match(await Deno.readTextFile(file("a.html")), /Time to First Token/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a server that fails: counted, shown, exit code 1 if all fail", async () => {
  await using server = new FakeServer({ ttftMs, tpotMs });
  const { code, out, err } = await run(
    ...["--port", `${server.port}`, "--num-prompts", "3", "--endpoint", "/v1/nothing"],
  );
  assert.equal(code, 1, out);
  assert.match(out, /Failed requests: +3\n/);
  assert.match(out, /3 of 3 requests failed:\n {2}3 x HTTP 404 Not Found/);
  assert.match(err, /error: every request failed/);
});

Deno.test("a server that is not there", async () => {
  const { code, err } = await run("--port", "1");
  assert.equal(code, 1);
  assert.match(err, /no server answers at http:\/\/127.0.0.1:1\/ \(.*connection refused\)\. Start/);
});

Deno.test("a server that wants a key says so before any request is sent", async () => {
  let requests = 0;
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    requests++;
    return Response.json({ error: { message: "no key" } }, { status: 401 });
  });
  for (const model of [[], ["--model", "m"]]) {
    const { code, err } = await run("--port", `${server.addr.port}`, ...model);
    assert.equal(code, 2, err);
    assert.match(
      err,
      /without a key, .*HTTP 401 Unauthorized: no key\): set OPENAI_API_KEY, or add/,
    );
  }
  assert.equal(requests, 2);
});

Deno.test("two servers are compared on the same requests", async () => {
  await using quick = new FakeServer({ ttftMs, tpotMs: 1 });
  await using slow = new FakeServer({ ttftMs: 900, tpotMs: 1 });
  const urls = [quick, slow].map(({ port }) => `http://127.0.0.1:${port}`);
  const { code, out, err } = await run(
    ...["--compare", ...urls, "--num-prompts", "2", "--random-output-len", "2"],
  );
  assert.equal(code, 0, err);
  assert.match(out, new RegExp(`^A: ${urls[0]}\nB: ${urls[1]}\n`));
  const [a, b] = /Median TTFT \(ms\) +(\S+) +(\S+)/.exec(out)!.slice(1).map(Number);
  assert.ok(a < b, out);
});

Deno.test("a server that does not start says why", async () => {
  const { code, err } = await run("--serve", "sh -c 'echo no GPU >&2; exit 3'");
  assert.equal(code, 2);
  assert.match(err, /the server "sh -c .*" ended \(exit code 3\):\nno GPU/);
});

/** Requests that move between processes all the time answer as those that never do. */
import assert from "node:assert/strict";
import {
  assertSameStreams,
  pidOf,
  restless,
  runAll,
  startCluster,
  waitUntilEmpty,
} from "./cluster.ts";
import { type Server, startServer } from "./harness.ts";
import { variedRequests } from "./streams.ts";

const NUM_REQUESTS = 6;
const NUM_TOKENS = 500;
const LEAST_MOVES = 12;
const two = ["--initial-instances=2", ...restless];

/** Greedy and sampled ones, with log probabilities. */
async function complete({ url }: Server, i: number): Promise<unknown> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      prompt: "Once upon a time ".repeat(1 + i),
      max_tokens: NUM_TOKENS,
      temperature: i % 2,
      frequency_penalty: i % 3 === 0 ? 0.1 : 0,
      seed: i,
      logprobs: 2,
      ignore_eos: true,
    }),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  const { choices: [choice], usage } = JSON.parse(text);
  assert.equal(usage.completion_tokens, NUM_TOKENS);
  return choice;
}

function completeAll(server: Server): Promise<unknown[]> {
  return Promise.all(Array.from({ length: NUM_REQUESTS }, (_, i) => complete(server, i)));
}

/** Of this user alone, removed when it is disposed of. */
async function temporaryDirectory() {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

function count(server: Server, pattern: RegExp): number {
  return [...server.program.stderr.matchAll(pattern)].length;
}

let undisturbed: Promise<unknown[]> | null = null;

/** The answers of one instance. */
function expectedAnswers(): Promise<unknown[]> {
  return undisturbed ??= (async () => {
    await using server = await startServer([]);
    const answers = await completeAll(server);
    assert.equal(count(server, / moved /g), 0);
    return answers;
  })();
}

Deno.test("tokens and log probabilities are exact while short requests are recomputed where they go", async () => {
  const expected = await expectedAnswers();
  await using server = await startServer([...two, "--migration-crossover=300"]);
  while (count(server, / moved .* to be recomputed: \d+ tokens/g) < 3) {
    assert.deepEqual(await completeAll(server), expected);
  }
});

for (const backend of ["gloo", "kvtransfer", "rayrpc", "grpc"]) {
  Deno.test(`tokens and log probabilities are exact while requests move by ${backend}`, async () => {
    const expected = await expectedAnswers();
    await using naming = await temporaryDirectory();
    await using server = await startServer([
      ...two,
      `--migration-backend=${backend}`,
      `--migration-backend-kvtransfer-naming-url=file:${naming.path}`,
    ]);
    while (count(server, / moved /g) < LEAST_MOVES) {
      assert.deepEqual(await completeAll(server), expected);
    }
    const complaints = server.program.stderr.split("\n").filter((line) => /WARN|ERROR/.test(line));
    assert.deepEqual(complaints, []);
  });
}

Deno.test("an instance that is killed while requests move by grpc costs no stream", async () => {
  const args = [...restless, "--migration-backend=grpc", "--migration-backend-server-address"];
  await using cluster = await startCluster(3, [...args, "127.0.0.1:0"]);
  const requests = variedRequests(9, 600);
  const expected = await runAll(cluster, requests);
  await cluster.program.waitForLog(/migration backend grpc serves at 127\.0\.0\.1:\d+/);
  await cluster.program.waitForLog(/ moved /);
  const victim = await pidOf(cluster, "instance-1");
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) Deno.kill(victim, "SIGKILL");
  });
  assertSameStreams(streams, expected);
  await cluster.program.waitForLog(/lost instance-1/);
  await waitUntilEmpty(cluster, 3);
});

Deno.test("without --enable-migration requests stay", async () => {
  await using server = await startServer(
    two.filter((argument) => argument !== "--enable-migration"),
  );
  await completeAll(server);
  assert.equal(count(server, /move/g), 0);
});

Deno.test("more buffer blocks than there are KV blocks are reduced, with a warning", async () => {
  await using server = await startServer([
    "--enable-migration",
    "--migration-backend=rayrpc",
    "--num-gpu-blocks-override=300",
    "--migration-buffer-blocks=400",
  ]);
  const warning = "--migration-buffer-blocks 400 is more than the 300 KV blocks of the instance";
  await server.program.waitForLog(new RegExp(warning));
});

Deno.test("requests move between simulated instances", async () => {
  const simulated = "--device sim --gpu-type a10 --model llama-7b --speedup 10".split(" ");
  await using server = await startServer([...simulated, ...two]);
  const complete = (seed: number) =>
    fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "hello", max_tokens: 400, seed }),
    }).then((response) => response.json());
  const before = await Promise.all([0, 1, 2].map(complete));
  await server.program.waitForLog(/moved .* in \d stages?: \d+ blocks at \d+\.\d+ GB\/s/);
  const after = await Promise.all([0, 1, 2].map(complete));
  const texts = (answers: { choices: { text: string }[] }[]) =>
    answers.map(({ choices }) => choices[0].text);
  assert.deepEqual(texts(after), texts(before));
});

/** A simulated cluster behind the real HTTP API. */
import assert from "node:assert/strict";
import { toProfileJson } from "../../src/executor/sim/profile_file.ts";
import { builtinProfile } from "../../src/executor/sim/roofline.ts";
import { runtimeDirectories } from "./cluster.ts";
import { runProgram, startServer } from "./harness.ts";

async function complete(url: string, seed: number): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "hello", max_tokens: 20, seed }),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text).choices[0].text;
}

Deno.test("sixteen simulated A10 answer from one process", async () => {
  const args = "--device sim --gpu-type a10 --model llama-7b --speedup 50 --initial-instances 16";
  await using server = await startServer(args.split(" "));
  const answers = await Promise.all(
    Array.from({ length: 48 }, (_, i) => complete(server.url, i % 3)),
  );
  for (const [i, answer] of answers.entries()) {
    assert.equal(answer.length, 20);
    assert.equal(answer, answers[i % 3], "the seed alone decides");
  }
  assert.equal(new Set(answers).size, 3);
  assert.deepEqual(runtimeDirectories(server.program), [], "one process needs no sockets");
});

Deno.test("a profile of a file runs in processes of its own", async () => {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  try {
    await Deno.writeTextFile(
      path,
      JSON.stringify(toProfileJson([builtinProfile("a10", "llama-7b")])),
    );
    const args = ["--profiling-result-file-path", path, "--model", "org/LLaMA-7B"];
    args.push("--instance-isolation", "process", "--initial-instances", "2", "--speedup", "50");
    await using server = await startServer(args);
    assert.equal(await complete(server.url, 1), await complete(server.url, 1));
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a model that is not in the profile ends the start at once", async () => {
  const { code, stderr } = await runProgram(["serve", "--device", "sim", "--model", "gpt"]);
  assert.equal(code, 2);
  assert.match(stderr, /There is no built-in profile of gpt for --gpu-type a10: expected llama-7b/);
});

Deno.test("requests of high priority overtake normal ones that wait", async () => {
  const args = "--device sim --model llama-7b --speedup 20 --max-num-seqs 1".split(" ");
  await using server = await startServer(args);
  const finished: string[] = [];
  const ends: Promise<void>[] = [];
  const start = async (name: string, fields: object, headers: Record<string, string> = {}) => {
    // The headers of a stream come when an instance has queued its request.
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ prompt: "hello", max_tokens: 20, stream: true, ...fields }),
    });
    ends.push(
      response.text().then((text) => {
        assert.match(text, /\[DONE\]/);
        finished.push(name);
      }),
    );
  };
  // The first one runs until all others wait, also on a busy machine.
  for (let i = 0; i < 4; i++) await start(`normal ${i}`, { max_tokens: i === 0 ? 1_500 : 20 });
  await start("high by field", { priority: "high" });
  await start("high by header", {}, { "x-request-priority": "high" });
  await Promise.all(ends);
  assert.deepEqual(finished.slice(-3), ["normal 1", "normal 2", "normal 3"]);
});

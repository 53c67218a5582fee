/** Streams of real clients while things happen to the instances. Linux: processes are looked at. */
import assert from "node:assert/strict";
import { spoil, withModel } from "../executor/cpu/fixtures.ts";
import { leave } from "./chaos.ts";
import {
  assertSameStreams,
  type Cluster,
  pidOf,
  runAll,
  startCluster,
  waitUntilEmpty,
} from "./cluster.ts";
import { openFiles } from "./processes.ts";
import { variedRequests } from "./streams.ts";

Deno.test("streams go on when an instance is killed", async () => {
  await using cluster = await startCluster(3);
  const requests = variedRequests(12, 600);
  const quiet = await runAll(cluster, requests);
  const victim = await pidOf(cluster, "instance-1");
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) Deno.kill(victim, "SIGKILL");
  });
  assertSameStreams(streams, quiet);
  await cluster.program.waitForLog(/lost instance-1/);
  await waitUntilEmpty(cluster, 3);
});

Deno.test("a request of which the model makes garbage fails alone, and costs no instance", async () => {
  await withModel("--dtype f32", async (model) => {
    spoil(`${model}/model.safetensors`, "model.embed_tokens.weight", 7);
    await using cluster = await startCluster(1, ["--model", model, "--served-model-name", "m"]);
    const complete = async (prompt: number[], more = {}) => {
      const response = await fetch(`${cluster.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt, max_tokens: 20, ignore_eos: true, ...more }),
      });
      return { status: response.status, text: await response.text() };
    };
    const prompts = [[1, 2, 3], [7, 2, 3], [4, 5, 6], [1, 2, 7]];
    const answers = await Promise.all(prompts.map((prompt) => complete(prompt)));
    assert.deepEqual(answers.map(({ status }) => status), [200, 500, 200, 500]);
    assert.match(answers[1].text, /logit of token \d+ is NaN: the model computed garbage/);
    assert.match((await complete([7], { stream: true })).text, /model computed garbage/);
    await waitUntilEmpty(cluster, 1);
    assert.doesNotMatch(cluster.program.stderr, /lost instance/);
  });
});

Deno.test("clients that leave in a storm cost the others nothing, and leave nothing", async () => {
  await using cluster = await startCluster(2);
  const requests = variedRequests(6, 600);
  const quiet = await runAll(cluster, requests);
  await leave(cluster, 4, 10);
  await waitUntilEmpty(cluster, 2);
  const filesBefore = filesOf(cluster);
  const [streams] = await Promise.all([
    runAll(cluster, requests),
    ...[0, 1, 5, 40].map((patience) => leave(cluster, 20, patience)),
  ]);
  assertSameStreams(streams, quiet);
  await waitUntilEmpty(cluster, 2);
  await cluster.program.waitUntil(
    `${filesOf(cluster)} open files were the ${filesBefore} of before`,
    () => filesOf(cluster) <= filesBefore,
  );
});

function filesOf({ program }: Cluster): number {
  return program.processes().reduce((sum, { pid }) => sum + openFiles(pid), 0);
}

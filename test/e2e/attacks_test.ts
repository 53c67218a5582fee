/**
 * Requests that are made to hurt, all at once: each gets an answer, and memory stays bounded. What others
 * notice of them is measured by `deno task bench attacks`.
 */
import assert from "node:assert/strict";
import { attackNames } from "./_attackers.ts";
import { observe, startAttackers } from "./attacks.ts";
import { startServer } from "./harness.ts";
import { abandonLongPrompt, LONG_PROMPT_TOKENS, startLongServer } from "./long_prompt.ts";
import { longTest } from "../long.ts";

const CLIENTS = 8;
const MOST_MEMORY_BYTES = 1e9;

Deno.test({
  name: "requests that are made to hurt get an answer, in bounded memory",
  ignore: Deno.build.os !== "linux",
  async fn() {
    using attackers = startAttackers();
    await attackers.ready;
    await using server = await startServer(["--disable-log-requests"]);
    const { url, program } = server;
    const processes = () => program.processes();
    const quiet = await observe(url, processes, Promise.resolve());
    // Nobody waits for the time to be over: each attack is sent once, or a few times.
    const reported = attackers.ask({ url, durationMs: 0, clients: CLIENTS });
    const attacked = await observe(url, processes, reported);
    const report = await reported;
    assert.deepEqual(Object.keys(report).sort(), attackNames.toSorted());
    for (const [name, statuses] of Object.entries(report)) {
      // 429 says that others are being served; anything from 500 on is a defect.
      const told = `${name}: ${JSON.stringify(statuses)}`;
      assert.ok(Object.keys(statuses).every((status) => Number(status) < 500), told);
    }
    const grownBytes = attacked.memoryBytes - quiet.memoryBytes;
    assert.ok(grownBytes < MOST_MEMORY_BYTES, `${grownBytes} bytes more than before`);
    await program.stopWell();
  },
});

longTest({
  name: "a prompt of 220,000 tokens whose client leaves is not computed to its end",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using server = await startLongServer();
    // Far into the prompt, where a piece of it takes long.
    const { computedTokens } = await abandonLongPrompt(server, 20_000);
    assert.ok(computedTokens < LONG_PROMPT_TOKENS, `${computedTokens} tokens were computed`);
    await server.program.stopWell();
  },
});

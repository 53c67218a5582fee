import assert from "node:assert/strict";
import { claimMemory, unusedClaims } from "../../../src/executor/cpu/memory_claims.ts";

const script = new URL("./_claim_memory.ts", import.meta.url).pathname;

/** A process that holds a pool as large as the memory allows, most of which it never touches. */
async function startInstance() {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script, "instance", "--started-by", "test"],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const poolBytes = Number(new TextDecoder().decode(value));
  assert.ok(poolBytes > 0, "it did not load");
  return {
    poolBytes,
    async end() {
      await child.stdin.close();
      await reader.cancel();
      await child.status;
    },
  };
}

Deno.test({
  name: "memory claims: an instance leaves alone what another has claimed and does not use yet",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const before = unusedClaims().hostBytes; // of instances that others run on this machine
    const first = await startInstance();
    try {
      assert.ok(unusedClaims().hostBytes > before, "nothing was claimed");
      const second = await startInstance();
      await second.end();
      // A tenth of it, for each takes 90% of what it finds.
      const [one, other] = [first, second].map(({ poolBytes }) => poolBytes);
      assert.ok(other < one / 2, `${other} bytes beside ${one} that were claimed`);
    } finally {
      await first.end();
    }
  },
});

Deno.test("memory claims: a process does not count its own", () => {
  claimMemory(2 ** 50);
  assert.ok(unusedClaims().hostBytes < 2 ** 50);
  claimMemory(0);
});

import assert from "node:assert/strict";
import {
  claimMemory,
  unusedClaims,
  withdrawClaim,
} from "../../../src/executor/cpu/memory_claims.ts";

const path = (name: string) => new URL(name, import.meta.url).pathname;
const ignore = Deno.build.os !== "linux";

/** A program that looks like an instance, has claimed memory, and tells of it in a line. */
async function startInstance(words: readonly string[], env: Record<string, string> = {}) {
  const child = new Deno.Command(words[0], {
    args: words.slice(1),
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  return {
    said: JSON.parse(new TextDecoder().decode(value)),
    async end() {
      await child.stdin.close();
      await reader.cancel();
      await child.status;
    },
  };
}

const runs = [Deno.execPath(), "run", "-A", "--no-check"];

/** One that holds a pool as large as the memory allows, most of which it never touches. */
const startLargeInstance = () =>
  startInstance([...runs, path("_claim_memory.ts"), "instance", "--started-by", "test"]);

Deno.test({
  name: "memory claims: an instance leaves alone what another has claimed and does not use yet",
  ignore,
  fn: async () => {
    const before = unusedClaims().hostBytes; // of instances that others run on this machine
    const first = await startLargeInstance();
    try {
      assert.ok(unusedClaims().hostBytes > before, "nothing was claimed");
      const second = await startLargeInstance();
      await second.end();
      // A tenth of it, for each takes 90% of what it finds.
      assert.ok(second.said < first.said / 2, `${second.said} bytes beside ${first.said} claimed`);
    } finally {
      await first.end();
    }
  },
});

Deno.test({
  name: "memory claims: two instances that plan at once do not claim the same memory",
  ignore,
  fn: async () => {
    const directory = Deno.makeTempDirSync();
    const bytes = 2 ** 46; // more than all claims of instances that others run on this machine
    const start = (own: string, other: string) =>
      startInstance([
        ...[...runs, path("_claim_at_once.ts"), "instance"],
        ...[String(bytes), own, other, directory],
      ]);
    const both = await Promise.all([start("one", "other"), start("other", "one")]);
    try {
      const claimed = both.reduce((sum, { said }) => sum + said.claimBytes, 0);
      const shown = JSON.stringify(both.map(({ said }) => said));
      // What a process has in memory already is not counted against its claim a second time.
      const residentBytes = 2 ** 32;
      assert.ok(claimed <= bytes + residentBytes, `${claimed} of ${bytes} bytes: ${shown}`);
      assert.ok(claimed > bytes / 2, `${claimed} of ${bytes} bytes: ${shown}`);
    } finally {
      for (const one of both) await one.end();
      Deno.removeSync(directory, { recursive: true });
    }
  },
});

/** A program of another user that claims memory, as a file that this user may run. */
const strange = `
const c = Deno.dlopen("libc.so.6", {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
}).symbols;
const name = new TextEncoder().encode("llumnix-memory-claim-" + 2 ** 45 + "\\0");
console.log(JSON.stringify({ uid: Deno.uid(), fd: c.memfd_create(name, 1) }));
await Deno.stdin.readable.pipeTo(new WritableStream());
`;
const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/** Why no program can run as another user here; null: one can. */
function noOtherUser(): string | null {
  if (ignore) return "needs Linux";
  if (Deno.uid() !== 0) return "needs root";
  try {
    const [program, ...args] = [...asNobody, Deno.execPath(), "--version"];
    const options = { args, env: { DENO_DIR: "/nonexistent" }, stdout: "null", stderr: "null" };
    return new Deno.Command(program, options as Deno.CommandOptions).outputSync().success
      ? null
      : "another user cannot run Deno";
  } catch {
    return "needs setpriv";
  }
}

const obstacle = noOtherUser();

Deno.test({
  name: "memory claims: root does not believe those of other users" +
    (obstacle === null ? "" : ` (ignored: ${obstacle})`),
  ignore: obstacle !== null,
  fn: async () => {
    const directory = Deno.makeTempDirSync();
    Deno.chmodSync(directory, 0o777);
    const script = `${directory}/strange.ts`;
    Deno.writeTextFileSync(script, strange);
    const run = [Deno.execPath(), "run", "-A", "--no-check", "--no-config", script, "instance"];
    const env = { DENO_DIR: `${directory}/deno`, HOME: directory };
    try {
      const own = await startInstance(run, env);
      assert.ok(unusedClaims().hostBytes > 2 ** 44, "the claim of this user is not seen");
      await own.end();
      const other = await startInstance([...asNobody, ...run], env);
      try {
        assert.equal(other.said.uid, 65534);
        assert.ok(other.said.fd > 0, "nothing was claimed");
        assert.ok(unusedClaims().hostBytes < 2 ** 44, `${unusedClaims().hostBytes} bytes`);
      } finally {
        await other.end();
      }
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  },
});

Deno.test("memory claims: a process does not count its own", async () => {
  await claimMemory(() => ({ claimBytes: 2 ** 50 }));
  assert.ok(unusedClaims().hostBytes < 2 ** 50);
  withdrawClaim();
});

Deno.test("memory claims: a plan that does not fit is refused at once", async () => {
  let numPlans = 0;
  const plan = (): { claimBytes: number } => {
    numPlans++;
    throw new Error("too large");
  };
  await assert.rejects(claimMemory(plan), /too large/);
  assert.ok(numPlans >= 1);
});

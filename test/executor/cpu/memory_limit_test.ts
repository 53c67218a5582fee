/** The pools of an executor within a control group: filled to the last block, nothing is killed. */
import assert from "node:assert/strict";

const LIMIT_BYTES = 700 * 2 ** 20;

/** A new control group with a memory limit, of either version; null where none can be made. */
function makeGroup(): string | null {
  const name = `llumnix-test-${Deno.pid}`;
  const places = [
    { directory: `/sys/fs/cgroup/memory/${name}`, limit: "memory.limit_in_bytes" },
    { directory: `/sys/fs/cgroup/${name}`, limit: "memory.max" },
  ];
  for (const { directory, limit } of places) {
    try {
      Deno.mkdirSync(directory);
      Deno.statSync(`${directory}/${limit}`);
      Deno.writeTextFileSync(`${directory}/${limit}`, String(LIMIT_BYTES));
      return directory;
    } catch {
      removeGroup(directory);
    }
  }
  return null;
}

function removeGroup(directory: string): void {
  try {
    Deno.removeSync(directory);
  } catch {
    // It is not there, or its last process has yet to go.
  }
}

const group = makeGroup();

Deno.test({
  name: "memory: both pools are filled to the last block within a control group" +
    (group === null ? " (not here: no control group with a memory limit can be made)" : ""),
  ignore: group === null,
  fn: async () => {
    const script = new URL("./_fill_pools.ts", import.meta.url).pathname;
    const run = `echo $$ > ${group}/cgroup.procs && exec "$0" run -A ${script}`;
    const { code, stdout, stderr } = await new Deno.Command("sh", {
      args: ["-c", run, Deno.execPath()],
      stdout: "piped",
      stderr: "piped",
    }).output();
    removeGroup(group!);
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const { numBlocks, numSwapBlocks, poolBytes, lines } = JSON.parse(
      new TextDecoder().decode(stdout),
    );
    assert.ok(numBlocks > 0 && numSwapBlocks > 0);
    assert.ok(poolBytes < LIMIT_BYTES && poolBytes > LIMIT_BYTES / 3, `${poolBytes} bytes`);
    const told = (phase: string) => lines.filter((line: string) => line.startsWith(phase));
    assert.equal(told("kv-cache").length, 2, "each pool is told by its name");
    assert.equal(told("swap-pool").length, 2);
  },
});

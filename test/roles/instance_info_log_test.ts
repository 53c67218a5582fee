import assert from "node:assert/strict";
import { InstanceInfoLog } from "../../src/roles/instance_info_log.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { idleInfo } from "../manager/support.ts";

const options = {
  loadMetric: "remaining_steps",
  priorityHeadroomBlocks: null,
  enableDefrag: false,
  pollingInterval: 1,
  logBackups: 2,
} as const;

Deno.test("instance info: a full file is renamed, and the next one begins with the header", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const clock = new VirtualClock();
    const infos = [idleInfo("instance-0", { runningRequests: 1 })];
    const log = new InstanceInfoLog({
      clock,
      logFilename: `${directory}/server.log`,
      options: { ...options, logMaxBytes: 600 },
      infos: () => infos,
    });
    await clock.runUntil(() => clock.nowMs() >= 40_000);
    log.close();
    const names = [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
    const file = "server.log_instance.csv";
    assert.deepEqual(names, [file, `${file}.1`, `${file}.2`]);
    for (const name of names) {
      const [header, first] = Deno.readTextFileSync(`${directory}/${name}`).split("\n");
      assert.match(header, /^timestamp,instance_id,.*,instance_load_kind$/, name);
      if (first !== "") assert.match(first, /,instance-0,/, name);
    }
    const { size } = Deno.statSync(`${directory}/${file}.1`);
    assert.ok(size >= 600 && size < 1_000, `${size} bytes`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("instance info: a file that cannot be renamed gets no more rows, and nothing else happens", async () => {
  const directory = await Deno.makeTempDir();
  const clock = new VirtualClock();
  const infos = [idleInfo("instance-0", { runningRequests: 1 })];
  const log = new InstanceInfoLog({
    clock,
    logFilename: `${directory}/server.log`,
    options: { ...options, logMaxBytes: 600 },
    infos: () => infos,
  });
  await Deno.remove(directory, { recursive: true });
  await clock.runUntil(() => clock.nowMs() >= 40_000);
  log.close();
});

Deno.test("instance info: a manager that takes the place of another adds to its rows; any other begins anew", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/server.log_instance.csv`;
    const linesOf = async (continues: boolean) => {
      const clock = new VirtualClock();
      const log = new InstanceInfoLog({
        clock,
        logFilename: `${directory}/server.log`,
        options: { ...options, logMaxBytes: 0 },
        continues,
        infos: () => [idleInfo("instance-0", { runningRequests: 1 })],
      });
      await clock.runUntil(() => clock.nowMs() >= 3_500);
      log.close();
      return (await Deno.readTextFile(path)).trim().split("\n");
    };
    const first = await linesOf(true); // there is no file yet
    const both = await linesOf(true);
    assert.deepEqual(both.slice(0, first.length), first);
    assert.equal(both.length, 2 * first.length - 1); // one header
    await Deno.writeTextFile(path, "columns,of,another,version\n1,2,3,4\n");
    assert.deepEqual((await linesOf(true))[0], first[0]);
    assert.equal((await linesOf(false)).length, first.length);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

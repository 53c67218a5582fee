/** Linux: processes are found in procfs. */
import assert from "node:assert/strict";
import { HostProcess } from "../../src/core/host_process.ts";
import { until } from "../conformance/bus.ts";

/** A process that stands still, with a word of its own in its command line. */
async function stopped(word: string): Promise<Deno.ChildProcess> {
  const args = ["-c", "kill -STOP $$", word]; // a child would have the same words
  const child = new Deno.Command("sh", { args, stdin: "null" }).spawn();
  await until(() => HostProcess.find(child.pid, [word]) !== null);
  return child;
}

Deno.test("host process: is known by its words, and has ended when it is killed", async () => {
  const word = crypto.randomUUID();
  const child = await stopped(word);
  assert.equal(HostProcess.find(child.pid, [word, "other"]), null);
  const found = HostProcess.find(child.pid, [word])!;
  assert.deepEqual(HostProcess.findAll([word]).map(({ pid }) => pid), [child.pid]);
  assert.ok(found.isInOurContainer());
  assert.equal(found.hasEnded(), false);
  assert.equal(found.signal("SIGKILL"), true);
  assert.equal((await child.status).signal, "SIGKILL");
  assert.equal(found.hasEnded(), true);
  assert.equal(found.signal("SIGKILL"), false);
  assert.equal(HostProcess.find(child.pid, [word]), null);
});

Deno.test("host process: one that started later is another, though pid and words are the same", async () => {
  const word = crypto.randomUUID();
  const child = await stopped(word);
  // Pids cannot be had at will: the one before it is made up, as procfs had shown it.
  const procfs = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${procfs}/${child.pid}`);
    const copy = (name: string, change: (text: string) => string) => {
      const text = Deno.readTextFileSync(`/proc/${child.pid}/${name}`);
      Deno.writeTextFileSync(`${procfs}/${child.pid}/${name}`, change(text));
    };
    copy("cmdline", (text) => text);
    copy("stat", (text) => text);
    const found = HostProcess.find(child.pid, [word], procfs)!;
    assert.equal(found.hasEnded(), false);
    copy("stat", (text) => text.replace(/^(.*\) (?:\S+ ){19})\d+/, "$1" + "1"));
    assert.equal(found.hasEnded(), true);
    assert.equal(found.signal("SIGKILL"), false);
    copy("stat", (text) => text.replace(/\) \w /, ") Z "));
    assert.equal(found.hasEnded(), true, "it is a zombie");
    assert.equal(HostProcess.find(child.pid, [word], procfs), null);
    assert.ok(HostProcess.find(child.pid, [word]), "it lives");
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await Deno.remove(procfs, { recursive: true });
  }
});

Deno.test("host process: is found by its pid and its start, whatever its command line", async () => {
  const child = await stopped("word");
  try {
    const start = HostProcess.startOf(child.pid)!;
    assert.ok(start);
    assert.equal(HostProcess.startOf(child.pid), start);
    const own = HostProcess.startOf(Deno.pid)!;
    assert.notEqual(own, start);
    assert.equal(HostProcess.started(child.pid, own), null);
    assert.equal(HostProcess.started(child.pid, start.replace(/^./, "?")), null, "another host");
    const found = HostProcess.started(child.pid, start)!;
    assert.equal(found.hasEnded(), false);
    assert.equal(found.signal("SIGKILL"), true);
    assert.equal((await child.status).signal, "SIGKILL");
    assert.equal(HostProcess.started(child.pid, start), null);
    assert.equal(HostProcess.startOf(child.pid), undefined);
  } finally {
    await child.status;
  }
});

Deno.test("host process: the same pid and time in another container is another", () => {
  const procfs = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${procfs}/sys/kernel/random`, { recursive: true });
    const bootId = "sys/kernel/random/boot_id";
    Deno.writeTextFileSync(`${procfs}/${bootId}`, Deno.readTextFileSync(`/proc/${bootId}`));
    Deno.mkdirSync(`${procfs}/${Deno.pid}/ns`, { recursive: true });
    const stat = Deno.readTextFileSync(`/proc/${Deno.pid}/stat`);
    Deno.writeTextFileSync(`${procfs}/${Deno.pid}/stat`, stat);
    Deno.symlinkSync("pid:[17]", `${procfs}/${Deno.pid}/ns/pid`);
    const start = HostProcess.startOf(Deno.pid, procfs)!;
    assert.ok(start);
    assert.equal(HostProcess.started(Deno.pid, start), null);
    assert.ok(HostProcess.started(Deno.pid, start, procfs));
  } finally {
    Deno.removeSync(procfs, { recursive: true });
  }
});

Deno.test("host process: without procfs there is none", () => {
  assert.equal(HostProcess.startOf(Deno.pid, "/nonexistent"), undefined);
  assert.equal(HostProcess.find(Deno.pid, [], "/nonexistent"), null);
});

/** Linux: processes are found in procfs. */
import assert from "node:assert/strict";
import { HostProcess } from "../../src/core/host_process.ts";
import { until } from "../patience.ts";

/** A process that stands still. While it is still starting it has no command line, as one that ends. */
async function stopped(): Promise<Deno.ChildProcess> {
  const child = new Deno.Command("sleep", { args: ["600"], stdin: "null" }).spawn();
  const isStarted = () => Deno.readTextFileSync(`/proc/${child.pid}/cmdline`) !== "";
  await until(isStarted, "the process has a command line", 10);
  return child;
}

Deno.test("host process: one that started later is another, though the pid is the same", async () => {
  const child = await stopped();
  const start = HostProcess.startOf(child.pid)!;
  // Pids cannot be had at will: the one before it is made up, as procfs had shown it.
  const procfs = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${procfs}/${child.pid}/ns`, { recursive: true });
    Deno.mkdirSync(`${procfs}/sys/kernel/random`, { recursive: true });
    Deno.symlinkSync(
      Deno.readLinkSync(`/proc/${child.pid}/ns/pid`),
      `${procfs}/${child.pid}/ns/pid`,
    );
    const copy = (name: string, change = (text: string) => text) => {
      Deno.writeTextFileSync(`${procfs}/${name}`, change(Deno.readTextFileSync(`/proc/${name}`)));
    };
    copy("sys/kernel/random/boot_id");
    copy(`${child.pid}/cmdline`);
    copy(`${child.pid}/stat`);
    const found = HostProcess.started(child.pid, start, procfs)!;
    assert.equal(found.hasEnded(), false);
    copy(`${child.pid}/stat`, (text) => text.replace(/^(.*\) (?:\S+ ){19})\d+/, "$1" + "1"));
    assert.equal(found.hasEnded(), true);
    assert.equal(found.signal("SIGKILL"), false);
    copy(`${child.pid}/stat`, (text) => text.replace(/\) \w /, ") Z "));
    assert.equal(found.hasEnded(), true, "it is a zombie");
    assert.equal(HostProcess.started(child.pid, start, procfs), null);
    copy(`${child.pid}/stat`);
    copy(`${child.pid}/cmdline`, () => "");
    assert.equal(found.hasEnded(), true, "it has given its memory back");
    assert.ok(HostProcess.started(child.pid, start), "it lives");
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await Deno.remove(procfs, { recursive: true });
  }
});

Deno.test("host process: is found by its pid and its start, and has ended when it is killed", async () => {
  const child = await stopped();
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
    assert.equal(found.hasEnded(), true);
    assert.equal(found.signal("SIGKILL"), false);
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
});

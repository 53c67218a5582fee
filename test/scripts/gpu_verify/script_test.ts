/** scripts/gpu_verify.sh as it is called, on the software device. */
import assert from "node:assert/strict";
import { buildSoftwareDevice } from "../../../scripts/build_software_device.ts";
import { isLongRun } from "../../long.ts";
import { verify } from "../../../scripts/gpu_verify/main.ts";
import { type Section, turnsOf } from "../../../scripts/gpu_verify/sections.ts";
import type { VerifyReport } from "../../../scripts/gpu_verify/report.ts";

const script = decodeURIComponent(
  new URL("../../../scripts/gpu_verify.sh", import.meta.url).pathname,
);
const built = await buildSoftwareDevice();
const skip = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";

async function run(...args: string[]) {
  const { code, stdout, stderr } = await new Deno.Command(script, { args, stdin: "null" }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("gpu_verify.sh has help, and refuses arguments that it does not know", async () => {
  const help = await run("--help");
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^usage: scripts\/gpu_verify\.sh /);
  for (const words of [["--all"], ["ipc"], ["--sections", "x"], ["--out"], ["--carry", "/dev"]]) {
    const { code, stdout, stderr } = await run(...words);
    assert.deepEqual({ code, stdout }, { code: 2, stdout: "" }, words.join(" "));
    assert.match(stderr, /^gpu_verify: error: [^\n]+\n$/);
  }
});

Deno.test({
  name: `gpu_verify.sh runs sections on the software device and labels them${skip}`,
  ignore: "missing" in built,
  fn: async () => {
    const out = await Deno.makeTempDir();
    try {
      const names = isLongRun ? ["ipc", "kernels", "kill", "gloo", "nccl"] : ["ipc", "kernels"];
      const { code, stdout, stderr } = await run(
        ...["--software-device", "--short", "--sections", names.join(), "--out", out],
      );
      assert.equal(code, 0, stdout + stderr);
      const report: VerifyReport = JSON.parse(await Deno.readTextFile(`${out}/gpu_verify.json`));
      assert.ok(report.softwareDevice);
      assert.deepEqual(report.sections.map(({ name, outcome }) => [name, outcome]), [
        ...names.map((name) => [name, "passed"]),
      ]);
      const lines = (await Deno.readTextFile(`${out}/gpu_verify.md`)).split("\n").filter(Boolean);
      for (const line of lines) assert.match(line, /\(software device, no GPU\)$/);
    } finally {
      await Deno.remove(out, { recursive: true });
    }
  },
});

Deno.test({
  name: `a section that fails, hangs or shows nothing leaves the others and the report${skip}`,
  ignore: "missing" in built,
  fn: async () => {
    const out = await Deno.makeTempDir();
    const section = (name: string, code: string, limitS = 120): Section => ({
      ...{ name, shows: name, limitS, output: "findings" },
      command: () => ["eval", "--no-check", code],
    });
    const fine = 'console.log(JSON.stringify({ name: "a", value: "1" }));';
    const sections = [
      section("fails", `${fine} throw new Error("wrong bytes");`),
      section("hangs", `${fine} await new Promise((resolve) => setTimeout(resolve, 600_000));`, 5),
      section("crashes", 'Deno.kill(Deno.pid, "SIGKILL");'),
      section("silent", ""),
      section("works", fine),
    ];
    const { log } = console;
    console.log = () => {};
    try {
      const given = { sections, out, short: true, softwareDevice: true };
      assert.equal(await verify(given), false);
      const report: VerifyReport = JSON.parse(await Deno.readTextFile(`${out}/gpu_verify.json`));
      assert.deepEqual(report.sections.map(({ name, outcome }) => [name, outcome]), [
        ["fails", "failed"],
        ["hangs", "timed out"],
        ["crashes", "failed"],
        ["silent", "failed"],
        ["works", "passed"],
      ]);
      assert.match(report.sections[0].complaint, /wrong bytes/);
    } finally {
      console.log = log;
      await Deno.remove(out, { recursive: true });
    }
  },
});

Deno.test({
  name: `the report is written anew after each of the sections that run beside each other${skip}`,
  ignore: "missing" in built,
  fn: async () => {
    const out = await Deno.makeTempDir();
    const section = (name: string, code: string): Section => ({
      ...{ name, shows: name, limitS: 120, output: "findings", besideOthers: true },
      command: () => ["eval", "--no-check", code],
    });
    const fine = 'console.log(JSON.stringify({ name: "a", value: "1" }));';
    const untilReported = `
      const endMs = performance.now() + 20_000;
      const isReported = () => {
        try {
          return Deno.readTextFileSync("${out}/gpu_verify.json").includes('"first"');
        } catch {
          return false;
        }
      };
      while (!isReported()) {
        if (performance.now() > endMs) throw new Error("the first one is not reported");
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      ${fine}`;
    const { log } = console;
    console.log = () => {};
    try {
      const sections = [section("first", fine)];
      // One more than run at a time: the first one's place is taken again before all have ended.
      const [{ places }] = turnsOf(sections, navigator.hardwareConcurrency);
      for (let i = 0; i < places; i++) sections.push(section(`waits ${i}`, untilReported));
      assert.ok(await verify({ sections, out, short: true, softwareDevice: true }));
    } finally {
      console.log = log;
      await Deno.remove(out, { recursive: true });
    }
  },
});

/** scripts/gpu_verify.sh as it is called, on the software device. */
import assert from "node:assert/strict";
import { buildSoftwareDevice } from "../../../scripts/build_software_device.ts";
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
      const names = ["kernels", "ipc", "nccl", "kill"];
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

/** `llumnix doctor` on this machine: without a device, and with the software device. */
import assert from "node:assert/strict";
import { buildSoftwareDevice } from "../../scripts/build_software_device.ts";
import type { DoctorReport } from "../../src/cli/doctor/report.ts";
import { runProgram } from "./harness.ts";

const built = await buildSoftwareDevice();
const skip = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";
/** An empty directory has no library: the machine's own do not matter. */
const nowhere = { LLUMNIX_CUDA_LIBRARIES: "/dev/null", LLUMNIX_UCX_LIBRARIES: "/dev/null" };

async function reportOf(env: Record<string, string>, ...args: string[]): Promise<DoctorReport> {
  const { code, stdout, stderr } = await runProgram(["doctor", "--json", ...args], { env });
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

Deno.test("doctor without a device: everything that the CPU needs, and all paths measured", async () => {
  const report = await reportOf(nowhere, "--prefill-tokens-per-second", "1000");
  assert.equal(report.schema, 1);
  assert.equal(report.driver.state, "no driver");
  assert.deepEqual(report.problems, []);
  for (const { name, path, failure } of report.libraries) {
    assert.equal(path, null);
    assert.match(failure!, new RegExp(`^${name} cannot be opened. Tried:\\n  /dev/null: `));
  }
  assert.ok(report.cpuKernels.some(({ unavailable }) => unavailable === null));
  const { measured } = report.paths;
  assert.equal(measured.length, 5);
  for (const { path, forwardGBps, backGBps, failure } of measured) {
    assert.equal(failure, null, path);
    assert.ok(forwardGBps! > 0 && backGBps! > 0, path);
  }
  assert.deepEqual(report.crossover.paths.map(({ faster }) => faster), Array(5).fill("move"));
});

Deno.test({
  name: `doctor with the software device: devices, libraries and copies, all labelled${skip}`,
  ignore: "missing" in built,
  fn: async () => {
    const env = {
      LLUMNIX_CUDA_LIBRARIES: "missing" in built ? "" : built.directory,
      LLUMNIX_SOFTWARE_DEVICE: "devices=2,memory=64M",
      LLUMNIX_UCX_LIBRARIES: "/dev/null",
    };
    const report = await reportOf(env);
    assert.equal(report.driver.state, "ready");
    assert.ok(report.driver.softwareDevice);
    assert.deepEqual(report.devices.map(({ peers }) => peers), [[1], [0]]);
    const device = report.paths.measured.slice(5);
    assert.equal(device.length, 2);
    for (const { softwareDevice, failure } of device) {
      assert.deepEqual({ softwareDevice, failure }, { softwareDevice: true, failure: null });
    }
    const nccl = report.migrationBackends.find(({ name }) => name === "nccl");
    assert.equal(nccl!.devicePoolProblem, null);
    const one = await reportOf({ ...env, LLUMNIX_SOFTWARE_DEVICE: "devices=1,memory=64M" });
    const backend = (name: string) => one.migrationBackends.find((found) => found.name === name)!;
    assert.match(backend("nccl").devicePoolProblem!, /^one device, two instances: .*cuda_ipc/);
    assert.equal(backend("kvtransfer").devicePoolProblem, null);
    assert.match(report.notes.join(), /software device/);
  },
});

Deno.test({
  name: `doctor with a driver that is too old names both versions${skip}`,
  ignore: "missing" in built,
  fn: async () => {
    // The runtime is of CUDA 13; libcuda alone would serve, and is not in the way of a file.
    const env = {
      LLUMNIX_CUDA_LIBRARIES: "missing" in built ? "" : `${built.directory}libcudart.so.13`,
      LLUMNIX_SOFTWARE_DEVICE: "driver=12040",
    };
    const { driver } = await reportOf(env);
    const { state, driverVersion, libraryVersion, reason } = driver;
    assert.equal(state, "driver too old", reason ?? "");
    assert.deepEqual([driverVersion, libraryVersion], ["12.4", "13.0"]);
  },
});

Deno.test("doctor refuses words that it does not know, and a model that is not there", async () => {
  const ofCluster = [
    ["--cluster", "file:/no/such"],
    ["--cluster", "10.0.0.9"],
    ["--cluster", "file:/tmp", "--self-test"],
    ["--cluster-key-file", "key"],
  ];
  for (
    const words of [["--all"], ["now"], ["child", "x"], ["--model", "/no/such"], ...ofCluster]
  ) {
    const { code, stdout, stderr } = await runProgram(["doctor", ...words]);
    assert.deepEqual({ code, stdout }, { code: 2, stdout: "" }, words.join(" "));
    assert.match(stderr, /^llumnix doctor: error: [^\n]+\n$/);
  }
});

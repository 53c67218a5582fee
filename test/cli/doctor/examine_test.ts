import assert from "node:assert/strict";
import { CudaError, DriverTooOldError, NoDeviceError } from "../../../ffi/cuda/errors.ts";
import { crossoverOf, examine } from "../../../src/cli/doctor/examine.ts";
import type { Host } from "../../../src/cli/doctor/host.ts";
import { fakeCuda, fakeHost, missing, model, path, silently } from "./fake_host.ts";

const reportOf = (parts: Partial<Host> = {}) => examine(fakeHost(parts), model, silently);
const failure = (code: number) => ({ call: "cuInit", code, codeName: "CUDA_ERROR", text: "text" });
const fails = (error: Error) => ({
  openCuda(): never {
    throw error;
  },
});

Deno.test("a host without a driver serves on the CPU", async () => {
  const { driver, devices, problems, notes, cpuKernels } = await reportOf();
  assert.equal(driver.state, "no driver");
  assert.match(driver.reason!, /install one, or use the CPU/);
  assert.deepEqual({ devices, problems, notes }, { devices: [], problems: [], notes: [] });
  assert.equal(cpuKernels.length, 2);
});

Deno.test("devices are reported with the devices that they reach", async () => {
  const { driver, devices, notes } = await reportOf({ openCuda: () => fakeCuda(2) });
  assert.deepEqual(notes, []);
  assert.equal(driver.state, "ready");
  assert.deepEqual([driver.driverVersion, driver.libraryVersion], ["13.2", "13.0"]);
  assert.deepEqual(devices.map(({ peers }) => peers), [[1], [0]]);
});

Deno.test("a driver that is too old is reported with both versions", async () => {
  const error = new DriverTooOldError(failure(35), 12040, 13000);
  const { driver, notes } = await reportOf({ ...fails(error), nvidiaFile: () => "/dev/nvidia0" });
  const { state, driverVersion, libraryVersion } = driver;
  assert.deepEqual([state, driverVersion, libraryVersion], ["driver too old", "12.4", "13.0"]);
  assert.match(notes.join(), /has an NVIDIA device \(\/dev\/nvidia0\), and CUDA does not come up/);
});

Deno.test("no device, and a device that fails, are told apart", async () => {
  const none = await reportOf(fails(new NoDeviceError(failure(100))));
  assert.equal(none.driver.state, "no device");
  const hidden = await reportOf({ openCuda: () => fakeCuda(0) });
  assert.equal(hidden.driver.state, "no device");
  const broken = await reportOf(fails(new CudaError(failure(999))));
  assert.equal(broken.driver.state, "failed");
  await assert.rejects(reportOf(fails(new TypeError("a defect"))), TypeError);
});

Deno.test("libcuda in place of a libcudart that the driver cannot serve is explained", async () => {
  const { notes } = await reportOf({
    openCuda: () => fakeCuda(1, { api: "driver", name: "libcuda" }),
    openCudart() {
      throw new DriverTooOldError(failure(35), 12040, 13000);
    },
  });
  assert.match(notes.join(), /in place of libcudart: .*knows CUDA 12\.4.* of CUDA 13\.0/);
});

Deno.test("each file of UCX has its transports or its reason", async () => {
  const report = await reportOf({
    ucxLibrary: () =>
      Promise.resolve({ ...missing("libucp"), path: "/a", others: ["/b"], failure: null }),
    ucx(file) {
      if (file === "/b") return Promise.reject(new Error("its process was killed"));
      const devices = [{ transport: "tcp", device: "lo" }];
      return Promise.resolve({ path: "/a.0", version: "1.22.0", memoryTypes: ["host"], devices });
    },
  });
  assert.deepEqual(report.ucx.map(({ path, failure }) => [path, failure]), [
    ["/a", null],
    ["/b", "its process was killed"],
  ]);
});

Deno.test("every backend says whether it works with both kinds of pool", async () => {
  const problems = async (parts: Partial<Host>) => {
    const { migrationBackends } = await reportOf(parts);
    return new Map(migrationBackends.map(({ name, ...problems }) => [name, problems]));
  };
  const without = await problems({});
  assert.equal(without.get("gloo")!.hostPoolProblem, null);
  assert.match(without.get("gloo")!.devicePoolProblem!, /no CUDA device .*\(no driver\)/);
  assert.match(without.get("nccl")!.hostPoolProblem!, /moves KV blocks in device memory/);
  assert.equal(without.get("rayrpc")!.hostPoolProblem, null);
  assert.match(without.get("rayrpc")!.devicePoolProblem!, /no CUDA device .*\(no driver\)/);
  const device = await problems({ openCuda: () => fakeCuda(1) });
  assert.equal(device.get("rayrpc")!.devicePoolProblem, null);
  assert.equal(device.get("nccl")!.devicePoolProblem, "its library is missing");
});

Deno.test("a host on which the CPU cannot serve has problems", async () => {
  const memory = { ...fakeHost().memory(), availableBytes: 100 << 20 };
  const { problems } = await reportOf({
    memory: () => memory,
    kernelSets: () => [{ set: "wasm", unavailable: "no WASM" }],
  });
  assert.equal(problems.length, 2);
  assert.match(problems[1], /^100 MiB of memory are available/);
});

Deno.test("buffers are a sixteenth of the memory, from 1 to 64 MiB", async () => {
  const asked: number[] = [];
  for (const availableBytes of [0, 320 << 20, 2 ** 40]) {
    await reportOf({
      memory: () => ({ ...fakeHost().memory(), availableBytes }),
      measureHost: (byteLength) => (asked.push(byteLength >> 20), Promise.resolve([])),
    });
  }
  assert.deepEqual(asked, [1, 20, 64]);
});

Deno.test("a device that fails in the measurement leaves the rest of the report", async () => {
  const { paths } = await reportOf({
    openCuda: () => fakeCuda(1),
    measureDevice: () => Promise.reject(new CudaError(failure(700))),
  });
  assert.deepEqual(paths.measured.map(({ failure }) => failure === null), [true, false]);
});

Deno.test("the crossover is the slower direction over the bytes of a token", () => {
  const measured = [
    path("quick", 10, 8),
    { ...path("broken", 0, 0), forwardGBps: null, failure: "broken" },
    { ...path("software", 5, 5), softwareDevice: true },
  ];
  assert.deepEqual(crossoverOf(model, { measured }).paths, [
    { path: "quick", movedTokensPerSecond: 8_000_000, faster: null },
  ]);
  const verdict = (prefillTokensPerSecond: number) =>
    crossoverOf({ ...model, prefillTokensPerSecond }, { measured }).paths[0].faster;
  assert.deepEqual([verdict(7_999_999), verdict(8_000_001)], ["move", "recompute"]);
});

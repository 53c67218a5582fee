import assert from "node:assert/strict";
import {
  allowedCpus,
  type KernelError,
  kernelSetStates,
  loadCpuKernels,
  machineProblem,
} from "../../ffi/cpu_kernels/load.ts";
import type { CpuKernels } from "../../ffi/cpu_kernels/kernels.ts";
import { openNative } from "../../ffi/cpu_kernels/native.ts";
import { until } from "../patience.ts";
import { wasmSourceHash } from "../../scripts/build_kernels.ts";

const states = kernelSetStates();
const native = states.find(({ set, unavailable }) => unavailable === null && set !== "wasm");
const kernelsDirectory = new URL("../../ffi/cpu_kernels/", import.meta.url);

const createKernelWorker = () =>
  new Worker(new URL("./kernel_worker.ts", import.meta.url), { type: "module" });

/** A row of [1, 2, ..., 32] times a matrix of ones. */
function checkGemm(kernels: CpuKernels): void {
  const k = 32, ones = new Float32Array(16 * k).fill(1);
  const weights = kernels.pack("float32", [new Uint8Array(ones.buffer)], 16, k);
  const x = kernels.alloc(k * 4), y = kernels.alloc(64);
  const row = Float32Array.from({ length: k }, (_, i) => i + 1);
  kernels.bytes(x, k * 4).set(new Uint8Array(row.buffer));
  kernels.gemm(x, k, weights, 0n, y, 16, 1, false);
  const result = new Float32Array(kernels.bytes(y, 64).slice().buffer);
  assert.ok(result.every((value) => value === k * (k + 1) / 2));
}

Deno.test("kernels.wasm is built from the sources next to it", async () => {
  const hash = Deno.readTextFileSync(new URL("kernels.wasm.hash", kernelsDirectory)).trim();
  const hint = "run `deno run -A scripts/build_kernels.ts --wasm` and commit the result";
  assert.equal(hash, await wasmSourceHash(), hint);
});

Deno.test("a set that this machine can run is missing only if it was not built", () => {
  for (const { set, unavailable } of states) {
    const problem = machineProblem(set);
    if (problem !== null) assert.equal(unavailable, problem);
    else if (unavailable !== null) assert.match(unavailable, /deno task kernels --all/);
  }
  assert.equal(machineProblem("wasm"), null);
});

Deno.test("a set that is not available is refused, with those that are", async () => {
  const missing = states.find(({ unavailable }) => unavailable !== null);
  if (missing === undefined) throw new Error("one processor cannot have AMX and NEON");
  await assert.rejects(
    () => loadCpuKernels({ set: missing.set, threads: 1 }),
    (error: KernelError) =>
      error.message.startsWith(`${missing.set} kernels are not available: `) &&
      error.message.includes("Available here: ") && error.message.endsWith("wasm"),
  );
});

Deno.test("without a wish the fastest set is loaded", async () => {
  const kernels = await loadCpuKernels({ set: null, threads: 1 });
  assert.equal(kernels.name, states.find(({ unavailable }) => unavailable === null)?.set);
  checkGemm(kernels);
  kernels.close();
});

Deno.test("numbers of threads and CPUs that make no sense are refused", async () => {
  await assert.rejects(
    () => loadCpuKernels({ set: null, threads: 0 }),
    /0 threads, expected 1 to 512/,
  );
  await assert.rejects(
    () => loadCpuKernels({ set: null, threads: 2, cpus: [0] }),
    /2 threads cannot be pinned to CPUs 0: expected one CPU for each thread/,
  );
});

Deno.test({
  name: "threads are pinned to the CPUs given, until the set is closed",
  ignore: native === undefined,
  fn: async () => {
    const before = allowedCpus(), cpu = before.at(-1)!;
    const kernels = await loadCpuKernels({ set: native!.set, threads: 2, cpus: [cpu, cpu] });
    assert.deepEqual(allowedCpus(), [cpu]);
    checkGemm(kernels);
    kernels.close();
    assert.deepEqual(allowedCpus(), before);
    await assert.rejects(
      () => loadCpuKernels({ set: native!.set, threads: 1, cpus: [1023] }),
      /refused 1 threads pinned to CPUs 1023/,
    );
    assert.deepEqual(allowedCpus(), before);
  },
});

Deno.test({
  name: "a library is loaded from memory",
  ignore: native === undefined,
  fn: () => {
    const { set } = native!;
    const image = Deno.readFileSync(new URL(`build/kernels-${set}.so`, kernelsDirectory));
    const kernels = openNative(set, image, 2, null);
    checkGemm(kernels);
    kernels.close();
  },
});

Deno.test({
  name: "idle threads do not use the processor",
  ignore: native === undefined,
  fn: async () => {
    const threads = () => [...Deno.readDirSync("/proc/self/task")].map(({ name }) => name);
    const before = threads();
    const kernels = await loadCpuKernels({ set: native!.set, threads: 4 });
    checkGemm(kernels);
    const helpers = threads().filter((thread) => !before.includes(thread));
    assert.ok(helpers.length >= 3);
    const sleeps = (thread: string) =>
      /\) S /.test(Deno.readTextFileSync(`/proc/self/task/${thread}/stat`));
    // They wait actively for a moment before they sleep.
    await until(() => helpers.every(sleeps), "all helpers sleep", 10);
    kernels.close();
  },
});

Deno.test("several kernel sets can be in use at once", async () => {
  const sets = await Promise.all(
    [1, 2].map((threads) => loadCpuKernels({ set: null, threads })),
  );
  sets.forEach(checkGemm);
  sets.forEach((kernels) => kernels.close());
});

Deno.test("WASM refuses more than its memory and says what helps", async () => {
  const kernels = await loadCpuKernels({ set: "wasm", threads: 2, createKernelWorker });
  checkGemm(kernels);
  assert.throws(() => kernels.alloc(2 ** 32 - 2 ** 20), /4 GiB .*use a native kernel set/);
  const most = kernels.alloc(2 ** 31 + 2 ** 20);
  kernels.bytes(most + BigInt(2 ** 31), 4).fill(1);
  checkGemm(kernels);
  kernels.close();
});

Deno.test("a WASM helper that does not start is reported", async () => {
  const broken = () =>
    new Worker("data:text/javascript,throw new Error('broken')", { type: "module" });
  await assert.rejects(
    () => loadCpuKernels({ set: "wasm", threads: 2, createKernelWorker: broken }),
    /WASM kernels: helper thread 1: .*broken/,
  );
});

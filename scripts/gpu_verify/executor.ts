/**
 * The executor on a device: each fast path and the plain one in its place against the CPU, and bit for bit
 * against each other where the paths promise it; one device against two, where the host has them; how long the
 * self-test takes. `executor.ts TOOL` runs the comparison under a tool of compute-sanitizer, where the host has it.
 */
import { openCuda } from "../../ffi/cuda/open.ts";
import { engineDefaults } from "../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import { loadCudaModel } from "../../src/executor/cuda/load.ts";
import { type CudaPath, cudaPaths } from "../../src/executor/cuda/paths.ts";
import type { Executor } from "../../src/executor/executor.ts";
import { type CaseResult, compareLogits } from "../../src/executor/cuda/self_test/cases.ts";
import { runSelfTest, testOptions } from "../../src/executor/cuda/self_test/run.ts";
import { encodeTask } from "../../src/executor/cuda/self_test/child.ts";
import { isPassed, taskFor } from "../../src/executor/cuda/self_test/self_test.ts";
import { resolveModel } from "../../src/model/resolve.ts";
import { expect, found, isShort, reached } from "./device.ts";

/** What a model is served in. */
type Formats = Pick<EngineOptions, "dtype" | "quantization" | "kvCacheDtype">;

const wide = { quantization: null, kvCacheDtype: "auto" } as const;
const narrow: Formats = { dtype: "bfloat16", quantization: "fp8", kvCacheDtype: "fp8" };
const formats: readonly Formats[] = [
  ...(["bfloat16", "float16", "float32"] as const).map((dtype) => ({ dtype, ...wide })),
  narrow,
];
const options: EngineOptions = { ...engineDefaults(), device: "cuda", model: "llumnix-tiny" };

const [tool] = Deno.args;
if (tool === undefined) await comparePathsOfDevice();
else if (tool === "child") {
  for (const given of [formats[0], narrow]) await compareWithCpu(given, []);
} else await sanitize(tool);

async function comparePathsOfDevice(): Promise<void> {
  for (const given of formats) {
    await compareWithCpu(given, []);
    await compareWithCpu(given, cudaPaths);
  }
  await comparePaths(formats[0], ["graphs", "programmatic", "fused"]);
  await compareRanks(formats[0]);
  await timeSelfTest();
}

function taskOf(given: Formats, plain: readonly CudaPath[]) {
  const cuda = openCuda();
  const info = cuda.deviceInfo(0);
  const { softwareDevice } = cuda.library;
  const device = { info, driverVersion: cuda.driverVersion(), softwareDevice };
  const all = { ...options, ...given };
  return taskFor(resolveModel(all), device, all, plain);
}

/** 8 bits need compute capability 8.9. */
function canCompute({ quantization }: Formats): boolean {
  const [major, minor] = openCuda().deviceInfo(0).computeCapability;
  return quantization === null || major > 8 || (major === 8 && minor >= 9);
}

function nameOf({ dtype, quantization }: Formats): string {
  return `${dtype}${quantization === null ? "" : ", weights and cache in 8 bits"}`;
}

async function compareWithCpu(given: Formats, plain: readonly CudaPath[]): Promise<void> {
  if (!canCompute(given)) return found(nameOf(given), "not run: the device has no 8 bits");
  const cases = await runSelfTest(taskOf(given, plain));
  const what = `${nameOf(given)}, ${plain.length === 0 ? "fast" : "plain"} paths`;
  for (const one of cases) {
    found(`${what}: ${one.name}`, `error ${one.error.toExponential(2)}`);
    expect(isPassed(one), `${what}: ${one.name} has error ${one.error}`);
  }
}

/** Paths that change no bit. */
async function comparePaths(given: Formats, paths: readonly CudaPath[]): Promise<void> {
  for (const path of paths) {
    await compareBits(`with and without ${path}`, await load(given), await load(given, [path]));
  }
}

/** A model that is divided among two devices, which the host may not have. */
async function compareRanks(given: Formats): Promise<void> {
  const what = "on one device and on two";
  if (openCuda().deviceCount() < 2) return found(what, "not run: this host has one device");
  await compareBits(what, await load(given), await load(given, [], [0, 1]));
}

function load(
  given: Formats,
  plain: readonly CudaPath[] = [],
  ordinals: readonly number[] = [0],
): Promise<Executor> {
  const { model, longest } = taskOf(given, []);
  const spec = { device: "cuda" as const, options: testOptions(options, longest), hostShare: 1 };
  const lease = { ordinals, sharedBy: 1, release() {} };
  return loadCudaModel(spec, { model, plain, lease, libraries: {} });
}

/** Closes both. */
async function compareBits(what: string, one: Executor, other: Executor): Promise<void> {
  const { model: { dtype }, longest } = taskOf(formats[0], []);
  for (const { name, error } of await compareLogits(other, one, longest, dtype)) {
    expect(error === 0, `${what}, ${name} differ: error ${error}`);
  }
  await one.close();
  await other.close();
  found(what, "the same bits");
}

/** The self-test as an instance runs it, in a process of its own. */
async function timeSelfTest(): Promise<void> {
  const task = encodeTask(taskOf(formats[0], []));
  const startMs = performance.now();
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "mod.ts", "doctor", "child", "cuda-self-test", task],
  }).output();
  const tookS = (performance.now() - startMs) / 1000;
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  expect(success, `the self-test: ${text(stderr)}`);
  const { cases = [], failure } = JSON.parse(text(stdout).split("\n").at(-1)!);
  // In JSON an error beyond measure is null.
  const hasPassed = cases.length > 0 &&
    cases.every((one: CaseResult) => one.error !== null && isPassed(one));
  expect(hasPassed, `the self-test: ${failure ?? text(stdout)}`);
  found("self-test in a process of its own", `${tookS.toFixed(2)} s`);
  reached("self-test", tookS);
}

/** Runs the comparison under a tool of compute-sanitizer. */
async function sanitize(tool: string): Promise<void> {
  if (isShort) return found(tool, "not run on the software device");
  const program = new URL(import.meta.url).pathname;
  let result: Deno.CommandOutput;
  try {
    result = await new Deno.Command("compute-sanitizer", {
      args: [
        ...["--tool", tool, "--error-exitcode", "9", "--target-processes", "all"],
        ...[Deno.execPath(), "run", "-A", "--no-check", program, "child"],
      ],
      ...{ stdout: "piped", stderr: "piped" },
    }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return found(tool, "not run: this host has no compute-sanitizer");
  }
  const said = new TextDecoder().decode(result.stdout).trim().split("\n");
  // Its first complaints say where; its last line counts them.
  const complaints = said.filter((line) => line.startsWith("========= ")).slice(0, 30);
  expect(result.success, `${tool}: ${[...complaints, said.at(-1)].join("\n")}`);
  found(tool, said.at(-1)?.replace(/^=+ /, "") ?? "no error");
}

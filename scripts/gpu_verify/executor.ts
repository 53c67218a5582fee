/**
 * The executor on a device: each fast path and the plain one in its place against the CPU, and bit for bit
 * against each other where the paths promise it; one device against two, where the host has them; then the same small shapes under compute-sanitizer, where the
 * host has it.
 */
import { openCuda } from "../../ffi/cuda/open.ts";
import { engineDefaults } from "../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import { loadCudaModel } from "../../src/executor/cuda/load.ts";
import { type CudaPath, cudaPaths } from "../../src/executor/cuda/paths.ts";
import type { Executor } from "../../src/executor/executor.ts";
import { compareLogits } from "../../src/executor/cuda/self_test/cases.ts";
import { runSelfTest, testOptions } from "../../src/executor/cuda/self_test/run.ts";
import { isPassed, taskFor } from "../../src/executor/cuda/self_test/self_test.ts";
import { resolveModel } from "../../src/model/resolve.ts";
import { expect, found, isShort } from "./device.ts";

const dtypes = ["bfloat16", "float16", "float32"] as const;
const options: EngineOptions = { ...engineDefaults(), device: "cuda", model: "llumnix-tiny" };

if (Deno.args[0] === "memcheck-child") await compareWithCpu("bfloat16", []);
else {
  for (const dtype of dtypes) {
    await compareWithCpu(dtype, []);
    await compareWithCpu(dtype, cudaPaths);
  }
  await comparePaths("bfloat16", ["graphs", "programmatic", "fused"]);
  await compareRanks("bfloat16");
  await sanitize("memcheck");
}

function taskOf(dtype: (typeof dtypes)[number], plain: readonly CudaPath[]) {
  const cuda = openCuda();
  const info = cuda.deviceInfo(0);
  const { softwareDevice } = cuda.library;
  const device = { info, driverVersion: cuda.driverVersion(), softwareDevice };
  return taskFor(resolveModel({ ...options, dtype }), device, options, plain);
}

async function compareWithCpu(
  dtype: (typeof dtypes)[number],
  plain: readonly CudaPath[],
): Promise<void> {
  const cases = await runSelfTest(taskOf(dtype, plain));
  const paths = plain.length === 0 ? "fast paths" : "plain paths";
  for (const one of cases) {
    found(`${dtype}, ${paths}: ${one.name}`, `error ${one.error.toExponential(2)}`);
    expect(isPassed(one), `${dtype}, ${paths}: ${one.name} has error ${one.error}`);
  }
}

/** Paths that change no bit. */
async function comparePaths(
  dtype: (typeof dtypes)[number],
  paths: readonly CudaPath[],
): Promise<void> {
  for (const path of paths) {
    await compareBits(
      `with and without ${path}`,
      dtype,
      await load(dtype),
      await load(dtype, [path]),
    );
  }
}

/** A model that is divided among two devices, which the host may not have. */
async function compareRanks(dtype: (typeof dtypes)[number]): Promise<void> {
  const count = openCuda().deviceCount();
  if (count < 2) return found("on one device and on two", "not run: this host has one device");
  const divided = await load(dtype, [], [0, 1]);
  await compareBits("on one device and on two", dtype, await load(dtype), divided);
}

function load(
  dtype: (typeof dtypes)[number],
  plain: readonly CudaPath[] = [],
  ordinals: readonly number[] = [0],
): Promise<Executor> {
  const { model, longest } = taskOf(dtype, []);
  const spec = { device: "cuda" as const, options: testOptions(options, longest), hostShare: 1 };
  const lease = { ordinals, sharedBy: 1, release() {} };
  return loadCudaModel(spec, { model, plain, lease, libraries: {} });
}

/** Closes both. */
async function compareBits(
  what: string,
  dtype: (typeof dtypes)[number],
  one: Executor,
  other: Executor,
): Promise<void> {
  const { longest } = taskOf(dtype, []);
  for (const { name, error } of await compareLogits(other, one, longest, dtype)) {
    expect(error === 0, `${what}, ${name} differ: error ${error}`);
  }
  await one.close();
  await other.close();
  found(what, "the same bits");
}

/** Runs the comparison in bfloat16 under a tool of compute-sanitizer. */
async function sanitize(tool: string): Promise<void> {
  if (isShort) return found(tool, "not run on the software device");
  const program = new URL(import.meta.url).pathname;
  let result: Deno.CommandOutput;
  try {
    result = await new Deno.Command("compute-sanitizer", {
      args: [
        ...["--tool", tool, "--error-exitcode", "9", "--target-processes", "all"],
        ...[Deno.execPath(), "run", "-A", "--no-check", program, "memcheck-child"],
      ],
      ...{ stdout: "piped", stderr: "piped" },
    }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return found(tool, "not run: this host has no compute-sanitizer");
  }
  const said = new TextDecoder().decode(result.stdout).trim().split("\n").at(-1) ?? "";
  expect(result.success, `${tool}: ${said}`);
  found(tool, "no error");
}

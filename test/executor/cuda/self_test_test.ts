/** The self-test of a CUDA device: what it finds, and what follows from it. */
import assert from "node:assert/strict";
import { engineDefaults } from "../../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import { type CudaPath, cudaPaths } from "../../../src/executor/cuda/paths.ts";
import { testedModel } from "../../../src/executor/cuda/self_test/model.ts";
import { encodeTask, failureOf } from "../../../src/executor/cuda/self_test/child.ts";
import { runSelfTest } from "../../../src/executor/cuda/self_test/run.ts";
import {
  type Attempt,
  describe,
  findPlainPaths,
  hasPassed,
} from "../../../src/executor/cuda/self_test/self_test.ts";
import { resolveModel } from "../../../src/model/resolve.ts";
import { isLongRun } from "../../long.ts";
import { configure, counts, directory, reset } from "../../ffi/software_device/device.ts";
import { cudaTest, settings } from "./support.ts";

const options: EngineOptions = { ...engineDefaults(), device: "cuda", model: "llumnix-tiny" };

function task(plain: readonly CudaPath[] = [], longest = 20) {
  const model = testedModel(resolveModel({ ...options, dtype: "bfloat16" }), longest + 64);
  return { model, options, ordinal: 0, plain, longest };
}

/** Attempts as if these paths were broken. */
function trying(broken: readonly CudaPath[], tried: string[]) {
  return ({ plain }: { plain: readonly CudaPath[] }): Promise<Attempt> => {
    tried.push(plain.join("+"));
    const isBroken = broken.some((path) => !plain.includes(path));
    const error = isBroken ? Infinity : 0;
    return Promise.resolve({ plain, cases: [{ name: "rows", error, limit: 0.1 }], fault: null });
  };
}

Deno.test("self-test: a broken path is left out, two need all plain ones, else nothing serves", async () => {
  const tried: string[] = [];
  const find = (broken: readonly CudaPath[], plain: readonly CudaPath[] = []) => {
    tried.length = 0;
    return findPlainPaths(task(plain), trying(broken, tried), "a device");
  };
  assert.deepEqual(await find([]), { plain: [], warnings: [] });
  assert.deepEqual(tried, [""]);
  const one = await find(["sampling"]);
  assert.deepEqual(one.plain, ["sampling"]);
  assert.match(
    one.warnings[0],
    /^The self-test of a device failed and passes without sampling: .*rows: error beyond measure/,
  );
  assert.deepEqual(tried.slice(0, 2), [
    "",
    "graphs+programmatic+fused+tensor-cores+ahead+sampling",
  ]);
  const two = await find(["sampling", "graphs"]);
  assert.deepEqual([...two.plain].sort(), [...cudaPaths].sort());
  assert.deepEqual(await find(["graphs"], ["graphs"]), { plain: ["graphs"], warnings: [] });
  const unable = (given: { plain: readonly CudaPath[] }) =>
    Promise.resolve({ plain: given.plain, cases: [], fault: null, unable: "code 1, no memory" });
  assert.deepEqual(await findPlainPaths(task(), unable, "a device"), {
    plain: [],
    warnings: ["a device could not be tested, and serves all the same: code 1, no memory"],
  });
  await assert.rejects(
    findPlainPaths(
      task(),
      ({ plain }) => Promise.resolve({ plain, cases: [], fault: "SIGSEGV, without a word" }),
      "a device",
    ),
    {
      name: "UsageError",
      message: /the kernels fail on a device.*report.*doctor --self-test.*SIGSEGV.*--device cpu/,
    },
  );
});

/** What the process of an attempt prints. */
async function saidByProcess(changes: string): Promise<string> {
  const program = new URL("../../../mod.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      program,
      "doctor",
      "child",
      "cuda-self-test",
      encodeTask(task()),
    ],
    env: {
      LLUMNIX_CUDA_LIBRARIES: directory!,
      LLUMNIX_SOFTWARE_DEVICE: `${settings},${changes}`,
    },
    stderr: "inherit",
  });
  return new TextDecoder().decode((await child.output()).stdout);
}

cudaTest(
  "self-test: a device that is busy or too small says nothing of its kernels, one that faults does",
  async () => {
    const failures = async (changes: string) => {
      configure(`${settings},${changes}`);
      try {
        await runSelfTest(task(), { from: directory! });
        assert.fail("it ran");
      } catch (error) {
        return failureOf(error as Error);
      } finally {
        reset();
      }
    };
    // A process that has a device already, as this one may by other tests, is never told that it is busy.
    assert.match(await saidByProcess("busy=1"), /"unable":".*busy/);
    assert.match(
      JSON.stringify(await failures("memory=8M")),
      /"unable":".*KV cache .* does not fit/,
    );
    assert.match(JSON.stringify(await failures("fail-allocation=3")), /"unable":".*memory/);
    // Those of a plain path may be loaded.
    assert.match(JSON.stringify(await failures("fail-load=218")), /"failure":".*be loaded/);
    const fault = await failures("fail-kernel=silu_multiply_bf16");
    assert.match(JSON.stringify(fault), /"failure":".*illegal memory access/);
  },
);

cudaTest("self-test: weights and caches of 8 bits agree with the CPU's", async () => {
  configure(settings);
  for (const plain of [[], [...cudaPaths]] as const) {
    for (const kvCacheDtype of ["auto", "fp8"] as const) {
      const given = task(plain);
      const narrow = {
        ...given,
        options: { ...options, kvCacheDtype, quantization: "fp8" as const },
      };
      const cases = await runSelfTest(narrow, { from: directory! });
      const attempt = { plain, cases, fault: null };
      assert.ok(hasPassed(attempt), describe(attempt));
      // Weights that were not rounded alike would show: without it the error is above the limit.
      assert.equal(cases[0].limit, kvCacheDtype === "fp8" ? 0.2 : 0.05);
    }
  }
});

cudaTest("self-test: the kernels agree with those of the CPU, on each path", async () => {
  configure(settings);
  const before = counts();
  for (const plain of [[], [...cudaPaths]] as const) {
    const cases = await runSelfTest(task(plain), { from: directory! });
    const attempt = { plain, cases, fault: null };
    assert.ok(hasPassed(attempt), describe(attempt));
    assert.equal(cases.length, plain.length === 0 ? 6 : 4);
  }
  assert.deepEqual(counts(), before);
});

/** What the device's process finds with these settings; a fault is one of the process. */
async function findOn(deviceSettings: string) {
  configure(`${settings},${deviceSettings}`);
  const tried: string[] = [];
  try {
    return {
      tried,
      ...await findPlainPaths(task(), async (given) => {
        tried.push(given.plain.join("+"));
        try {
          const cases = await runSelfTest(given, { from: directory! });
          return { plain: given.plain, cases, fault: null };
        } catch (error) {
          reset();
          return { plain: given.plain, cases: [], fault: (error as Error).message };
        }
      }, "a device"),
    };
  } finally {
    configure(`${settings},skip-kernel=,fail-kernel=`);
  }
}

cudaTest(
  "self-test: a kernel that computes nothing, and one that faults, are left out",
  async () => {
    // A fault says nothing of the kernel: more attempts.
    for (const fault of isLongRun ? ["skip-kernel", "fail-kernel"] : ["skip-kernel"]) {
      const { plain, warnings, tried } = await findOn(`${fault}=choose_token`);
      assert.deepEqual(plain, ["sampling"]);
      // The logits are right, or the process said nothing.
      assert.equal(tried.length, fault === "skip-kernel" ? 4 : 8, tried.join(", "));
      assert.match(
        warnings[0],
        fault === "skip-kernel" ? /tokens \(every token is excluded/ : /illegal memory access/,
      );
    }
  },
);

cudaTest(
  "self-test: a broken kernel without another one in its place refuses the start",
  async () => {
    await assert.rejects(findOn("skip-kernel=silu_multiply_bf16"), {
      name: "UsageError",
      message:
        /the kernels give wrong results on a device.*logits of prompts: error beyond measure, limit 0\.05/,
    });
  },
);

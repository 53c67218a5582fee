/**
 * `serve --device cuda` on the software device: two instances with a device each, whose requests move all
 * the time and give the tokens of an instance that nothing disturbs; and what a lost device does.
 */
import assert from "node:assert/strict";
import { buildSoftwareDevice } from "../../scripts/build_software_device.ts";
import {
  assertSameStreams,
  type Cluster,
  pidOf,
  restless,
  runAll,
  startCluster,
  waitUntilEmpty,
  waitUntilReady,
} from "./cluster.ts";
import { longTest } from "../long.ts";
import { type StreamResult, variedRequests } from "./streams.ts";

const built = await buildSoftwareDevice();
const skipped = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";
const requests = variedRequests(6, 30);

/** Outcomes of self-tests, which the clusters of this file share. */
const cache = Deno.makeTempDirSync({ prefix: "llumnix-cuda-cache-" });
addEventListener("unload", () => Deno.removeSync(cache, { recursive: true }));

function startOnCuda(
  numInstances: number,
  args: readonly string[] = [],
  faults = "",
): Promise<Cluster> {
  const given = ["--device=cuda", "--model=llumnix-tiny", "--max-model-len=512", ...args];
  return startCluster(numInstances, given, {
    env: {
      LLUMNIX_CUDA_LIBRARIES: "directory" in built ? built.directory : "",
      // Devices of this test alone: other tests run beside it.
      LLUMNIX_SOFTWARE_DEVICE:
        `devices=2,order=late,progress=20,memory=1G,identity=${Deno.pid},${faults}`,
      XDG_CACHE_HOME: cache,
    },
  });
}

let quiet: Promise<StreamResult[]> | null = null;

/** The streams of one instance, which nothing disturbs. */
function quietStreams(): Promise<StreamResult[]> {
  return quiet ??= (async () => {
    await using cluster = await startOnCuda(1);
    return await runAll(cluster, requests);
  })();
}

Deno.test({
  name: `serve --device cuda: requests move between devices, and an instance is killed${skipped}`,
  ignore: "missing" in built,
  async fn() {
    const expected = await quietStreams();
    const naming = await Deno.makeTempDir();
    try {
      await using cluster = await startOnCuda(2, [
        ...restless,
        "--migration-backend=kvtransfer",
        "--migration-backend-transfer-type=cuda_ipc",
        `--migration-backend-kvtransfer-naming-url=file:${naming}`,
      ]);
      assert.match(
        cluster.program.stderr,
        /instance-[01] is ready .*cuda:0 \(the software device\)/,
      );
      assert.match(
        cluster.program.stderr,
        /instance-[01] is ready .*cuda:1 \(the software device\)/,
      );
      assertSameStreams(await runAll(cluster, requests), expected);
      assert.match(cluster.program.stderr, / moved /);
      const victim = await pidOf(cluster, "instance-1");
      let events = 0;
      const streams = await runAll(cluster, requests, () => {
        if (++events === 60) Deno.kill(victim, "SIGKILL");
      });
      assertSameStreams(streams, expected);
      // Its device is free again: the instance in its place takes it.
      await cluster.program.waitForLog(/lost instance-1/);
      await waitUntilEmpty(cluster, 2);
    } finally {
      await Deno.remove(naming, { recursive: true });
    }
  },
});

Deno.test({
  name: `serve --device cuda: more instances than devices are refused${skipped}`,
  ignore: "missing" in built,
  async fn() {
    await assert.rejects(startOnCuda(3), /3 instances need a device each, and the driver shows 2/);
  },
});

/** Faults of a device while it serves. Its process ends, another takes its place, and the streams go on. */
interface Fault {
  readonly what: string;
  /** Of the software device; one process has the fault. */
  readonly settings: string;
  readonly seen: RegExp;
}

const illegalAddress: Fault = {
  what: "an illegal address (error 700)",
  settings: "fail-work=900",
  seen: /illegal memory access/,
};
const otherFaults: readonly Fault[] = [
  {
    what: "an uncorrectable ECC error",
    settings: "fail-work=900,fail-code=214",
    seen: /uncorrectable ECC error/,
  },
  {
    what: "a step that hangs",
    settings: "hang-work=900",
    seen: /did not end in .* \(--step-timeout\)/,
  },
];

async function survive({ settings, seen }: Fault): Promise<void> {
  const expected = await quietStreams();
  const directory = await Deno.makeTempDir();
  try {
    const args = ["--cuda-self-test=off", "--step-timeout=1"];
    const faults = `${settings},fault-once=${directory}/taken`;
    await using cluster = await startOnCuda(2, args, faults);
    assertSameStreams(await runAll(cluster, requests), expected);
    await cluster.program.waitForLog(seen);
    await cluster.program.waitForLog(/lost instance-[01]/);
    await waitUntilReady(cluster);
    assertSameStreams(await runAll(cluster, requests), expected);
    await waitUntilEmpty(cluster, 2);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const survivesFault = (fault: Fault): Deno.TestDefinition => ({
  name: `serve --device cuda: ${fault.what} ends an instance and no stream${skipped}`,
  ignore: "missing" in built,
  fn: () => survive(fault),
});
Deno.test(survivesFault(illegalAddress));
for (const fault of otherFaults) longTest(survivesFault(fault));

longTest({
  name: `serve --device cuda: a wrong kernel is found before it serves, and replaced${skipped}`,
  ignore: "missing" in built,
  async fn() {
    const expected = await quietStreams();
    await using cluster = await startOnCuda(1, [], "skip-kernel=choose_token");
    assert.match(cluster.program.stderr, /self-test of .* passes without sampling: serving so/);
    assertSameStreams(await runAll(cluster, requests), expected);
  },
});

longTest({
  name: `serve --device cuda: a wrong kernel without another one refuses the start${skipped}`,
  ignore: "missing" in built,
  async fn() {
    const wrong = startOnCuda(1, [], "skip-kernel=embed_f32");
    await assert.rejects(wrong, /the kernels give wrong results .*doctor --self-test/);
  },
});

longTest({
  name:
    `serve --device cuda: with 8 bits for weights and cache, requests move and stay the same${skipped}`,
  ignore: "missing" in built,
  async fn() {
    const narrow = ["--dtype=bfloat16", "--quantization=fp8", "--kv-cache-dtype=fp8"];
    const streams = async (numInstances: number, ...args: string[]) => {
      await using cluster = await startOnCuda(numInstances, [...narrow, ...args]);
      const streams = await runAll(cluster, requests);
      await waitUntilEmpty(cluster, numInstances);
      return { streams, stderr: cluster.program.stderr };
    };
    const { streams: expected } = await streams(1);
    const { streams: found, stderr } = await streams(2, ...restless, "--migration-backend=gloo");
    assertSameStreams(found, expected);
    assert.match(stderr, / moved /);
  },
});

/** Every backend moves requests between two instances on CUDA. */
const backends: readonly (readonly string[])[] = [
  ["--migration-backend=nccl"],
  ["--migration-backend=gloo"],
  ["--migration-backend=rayrpc"],
  ["--migration-backend=grpc", "--migration-backend-server-address=127.0.0.1:0"],
];
for (const backend of backends) {
  longTest({
    name: `serve --device cuda: requests move by ${backend[0].split("=")[1]}${skipped}`,
    ignore: "missing" in built,
    async fn() {
      const expected = await quietStreams();
      await using cluster = await startOnCuda(2, [...restless, ...backend]);
      assertSameStreams(await runAll(cluster, requests), expected);
      assert.match(cluster.program.stderr, / moved /);
      await waitUntilEmpty(cluster, 2);
    },
  });
}

/**
 * Two instances of two ranks, whose requests move rank to rank and give the tokens of one device. Then a device of
 * one of them fails: the instance ends, and no stream.
 */
async function moveAndFail(backend: readonly string[], fault: Fault): Promise<void> {
  const expected = await quietStreams();
  const directory = await Deno.makeTempDir();
  try {
    const args = ["--tensor-parallel-size=2", "--cuda-self-test=off", "--step-timeout=5"];
    const faults = `devices=4,${fault.settings},fault-once=${directory}/taken`;
    await using cluster = await startOnCuda(2, [...args, ...restless, ...backend], faults);
    const { stderr } = cluster.program;
    assert.match(stderr, /instance-[01] is ready .*cuda:0,1 \(the software device\)/);
    assert.match(stderr, /instance-[01] is ready .*cuda:2,3 \(the software device\)/);
    // Until the fault, and over it.
    for (let round = 0; round < 2; round++) {
      assertSameStreams(await runAll(cluster, requests), expected);
    }
    assert.match(cluster.program.stderr, / moved /);
    await cluster.program.waitForLog(fault.seen);
    await cluster.program.waitForLog(/lost instance-[01]/);
    await waitUntilEmpty(cluster, 2);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test({
  name: `serve --device cuda -tp 2: requests move by nccl, and a rank's device fails${skipped}`,
  ignore: "missing" in built,
  fn: () =>
    moveAndFail(["--migration-backend=nccl"], { ...illegalAddress, settings: "fail-work=4000" }),
});
longTest({
  name: `serve --device cuda -tp 2: requests move by kvtransfer, and a rank hangs${skipped}`,
  ignore: "missing" in built,
  async fn() {
    const naming = await Deno.makeTempDir();
    try {
      await moveAndFail([
        "--migration-backend=kvtransfer",
        "--migration-backend-transfer-type=cuda_ipc",
        `--migration-backend-kvtransfer-naming-url=file:${naming}`,
      ], { ...otherFaults[1], settings: "hang-work=4000" });
    } finally {
      await Deno.remove(naming, { recursive: true });
    }
  },
});
longTest({
  name: `serve --device cuda -tp 2: requests move by gloo, and a rank's device fails${skipped}`,
  ignore: "missing" in built,
  fn: () =>
    moveAndFail(["--migration-backend=gloo"], { ...illegalAddress, settings: "fail-work=4000" }),
});

Deno.test({
  name: `serve --device cuda -tp 2: too few devices for all instances are refused${skipped}`,
  ignore: "missing" in built,
  async fn() {
    const start = startOnCuda(2, ["-tp=2"]);
    await assert.rejects(start, /2 instances need 2 devices each, and the driver shows 2/);
  },
});

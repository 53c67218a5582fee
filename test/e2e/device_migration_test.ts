/**
 * Requests move between instances whose KV caches are in the memory of devices (`--device null-cuda` on
 * the software device, which has a device for each). Every step checks that each block holds its
 * sequence's tokens. Meanwhile one instance is killed and another hangs.
 */
import assert from "node:assert/strict";
import { buildSoftwareDevice } from "../../scripts/build_software_device.ts";
import { longTest } from "../long.ts";
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
import { signalIfThere } from "./harness.ts";
import { type StreamResult, variedRequests } from "./streams.ts";

const built = await buildSoftwareDevice();
const skipped = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";
/** Tokens of this device are drawn by the seed, also greedy ones. */
const requests = variedRequests(8, 400).map(({ body, ...request }, seed) => ({
  ...request,
  body: { ...body, seed },
}));
/** Of all events of the streams, those at which an instance is killed and another hangs. */
const KILL_AT = 600, HANG_AT = 1_400;

interface Case {
  readonly backend: string;
  readonly args?: readonly string[];
}

/** nccl needs a device for each instance; the others run with that too. */
const cases: readonly Case[] = [
  { backend: "nccl" },
  { backend: "kvtransfer", args: ["--migration-backend-transfer-type=cuda_ipc"] },
];
const longCases: readonly Case[] = [
  { backend: "gloo" },
  { backend: "rayrpc" },
  { backend: "grpc", args: ["--migration-backend-server-address=127.0.0.1:0"] },
];

function startOnDevices(numInstances: number, args: readonly string[] = []): Promise<Cluster> {
  const own = ["--device=null-cuda", "--model=llumnix-tiny", "--max-model-len=2048"];
  return startCluster(numInstances, [...own, ...args], {
    env: {
      LLUMNIX_CUDA_LIBRARIES: "directory" in built ? built.directory : "",
      // Other tests that run on this machine take devices of other hosts.
      LLUMNIX_SOFTWARE_DEVICE: `order=late,progress=20,memory=1G,devices=3,identity=${Deno.pid}`,
    },
  });
}

let quiet: Promise<StreamResult[]> | null = null;

/** The streams of one instance, which nothing disturbs. */
function quietStreams(): Promise<StreamResult[]> {
  return quiet ??= (async () => {
    await using cluster = await startOnDevices(1);
    return await runAll(cluster, requests);
  })();
}

for (const one of cases) {
  Deno.test({ name: nameOf(one), ignore: "missing" in built, fn: () => moveKillAndHang(one) });
}
for (const one of longCases) {
  longTest({ name: nameOf(one), ignore: "missing" in built, fn: () => moveKillAndHang(one) });
}

function nameOf({ backend }: Case): string {
  return `blocks of devices move by ${backend}, an instance is killed and another hangs${skipped}`;
}

async function moveKillAndHang({ backend, args = [] }: Case): Promise<void> {
  const expected = await quietStreams();
  const naming = await Deno.makeTempDir();
  try {
    await using cluster = await startOnDevices(3, [
      ...restless,
      "--instance-timeout=3",
      `--migration-backend=${backend}`,
      `--migration-backend-kvtransfer-naming-url=file:${naming}`,
      ...args,
    ]);
    const killed = await pidOf(cluster, "instance-1"), hung = await pidOf(cluster, "instance-2");
    let events = 0;
    const streams = await runAll(cluster, requests, () => {
      // On a busy machine one of them may have been given up before.
      if (++events === KILL_AT) signalIfThere(killed, "SIGKILL");
      if (events === HANG_AT) signalIfThere(hung, "SIGSTOP");
    });
    assertSameStreams(streams, expected);
    const { stderr } = cluster.program;
    assert.match(stderr, / moved /);
    assert.doesNotMatch(stderr, /KV cache of sequence/);
    await cluster.program.waitForLog(/lost instance-1/);
    await cluster.program.waitForLog(/lost instance-2: .*did not answer for 3 s and was killed/);
    await waitUntilReady(cluster);
    // The instances in their places exchange requests too.
    assertSameStreams(await runAll(cluster, requests), expected);
    await waitUntilEmpty(cluster, 3);
  } finally {
    await Deno.remove(naming, { recursive: true });
  }
}

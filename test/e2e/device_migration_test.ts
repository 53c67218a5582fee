/**
 * Requests move between instances whose KV caches are in the memory of a device (`--device null-cuda` on
 * the software device). Every step checks that each block holds its sequence's tokens; an instance is
 * killed meanwhile.
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
} from "./cluster.ts";
import { variedRequests } from "./streams.ts";

const built = await buildSoftwareDevice();
const skipped = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";
/** Tokens of this device are drawn by the seed, also greedy ones. */
const requests = variedRequests(12, 400).map(({ body, ...request }, seed) => ({
  ...request,
  body: { ...body, seed },
}));

function startOnDevice(numInstances: number, args: readonly string[] = []): Promise<Cluster> {
  return startCluster(numInstances, ["--device=null-cuda", "--max-model-len=2048", ...args], {
    env: {
      LLUMNIX_CUDA_LIBRARIES: "directory" in built ? built.directory : "",
      LLUMNIX_SOFTWARE_DEVICE: "order=late,progress=20,memory=1G",
    },
  });
}

/** The streams of one instance, which nothing disturbs. */
async function quietStreams() {
  await using cluster = await startOnDevice(1);
  return await runAll(cluster, requests);
}

for (const backend of ["gloo", "rayrpc"]) {
  Deno.test({
    name: `blocks of a device move by ${backend}, and an instance is killed${skipped}`,
    ignore: "missing" in built,
    fn: () => moveAndKill([`--migration-backend=${backend}`]),
  });
}

Deno.test({
  name: `blocks of a device move by kvtransfer (cuda_ipc), and an instance is killed${skipped}`,
  ignore: "missing" in built,
  fn: async () => {
    const naming = await Deno.makeTempDir();
    try {
      await moveAndKill([
        "--migration-backend=kvtransfer",
        "--migration-backend-transfer-type=cuda_ipc",
        `--migration-backend-kvtransfer-naming-url=file:${naming}`,
      ]);
    } finally {
      await Deno.remove(naming, { recursive: true });
    }
  },
});

async function moveAndKill(args: readonly string[]): Promise<void> {
  const quiet = await quietStreams();
  await using cluster = await startOnDevice(3, [...restless, ...args]);
  const victim = await pidOf(cluster, "instance-1");
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) Deno.kill(victim, "SIGKILL");
  });
  assertSameStreams(streams, quiet);
  assert.match(cluster.program.stderr, / moved /);
  assert.doesNotMatch(cluster.program.stderr, /KV cache of sequence/);
  await cluster.program.waitForLog(/lost instance-1/);
  await waitUntilEmpty(cluster, 3);
}

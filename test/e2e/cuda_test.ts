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
} from "./cluster.ts";
import { variedRequests } from "./streams.ts";

const built = await buildSoftwareDevice();
const skipped = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";
const requests = variedRequests(6, 30);

function startOnCuda(numInstances: number, args: readonly string[] = []): Promise<Cluster> {
  const given = ["--device=cuda", "--model=llumnix-tiny", "--max-model-len=512", ...args];
  return startCluster(numInstances, given, {
    env: {
      LLUMNIX_CUDA_LIBRARIES: "directory" in built ? built.directory : "",
      // Devices of this test alone: other tests run beside it.
      LLUMNIX_SOFTWARE_DEVICE: `devices=2,order=late,progress=20,memory=1G,identity=${Deno.pid}`,
    },
  });
}

/** The streams of one instance, which nothing disturbs. */
async function quietStreams() {
  await using cluster = await startOnCuda(1);
  return await runAll(cluster, requests);
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

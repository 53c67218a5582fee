/**
 * Processes of two hosts: two network namespaces with a link between them. The second host has an
 * instance alone; manager, API server and the other instance are on the first.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { clusterKey } from "../../src/roles/cluster_key.ts";
import {
  assertSameStreams,
  type Cluster,
  restless,
  runAll,
  servingInstances,
  small,
  waitUntilEmpty,
} from "./cluster.ts";
import { freePort } from "../free_port.ts";
import { type Program, runProgram } from "./harness.ts";
import { isLongRun } from "../long.ts";
import { TwoHosts } from "./hosts.ts";
import { User } from "./roles.ts";
import { type StreamResult, variedRequests } from "./streams.ts";

const requests = variedRequests(4, 120);
const LEAST_MOVES = 3;
const MOST_ROUNDS = 20;
const reason = TwoHosts.problem();

function moves(manager: Program): number {
  return [...manager.stderr.matchAll(/ moved /g)].length;
}

Deno.test({
  name: `two hosts: requests move between their instances, token by token as in a quiet run${
    reason === null ? "" : ` (ignored: ${reason})`
  }`,
  ignore: reason !== null,
  async fn() {
    await using hosts = await TwoHosts.start();
    let quiet: readonly StreamResult[] | null = null;
    // rayrpc moves blocks over the connections that the other two need as well.
    for (const backend of isLongRun ? ["rayrpc", "gloo", "grpc"] : ["gloo", "grpc"]) {
      await using user = new User();
      Deno.mkdirSync(join(user.directory, "llumnix")); // nothing will be there
      const keyFile = join(user.directory, "key");
      assert.equal((await runProgram(["keygen", keyFile])).code, 0);
      const managerAddress = `tcp:${hosts.first}:${freePort()}`;
      const options = [
        ...["--manager-address", managerAddress, "--cluster-key-file", keyFile],
        ...["--enable-migration", "--migration-backend", backend],
        ...["--migration-backend-server-address", "0.0.0.0:0"],
      ];
      const manager = user.manager(...restless, ...options);
      const cluster: Cluster = {
        ...await user.cluster(...options),
        managerAddress,
        clusterKey: clusterKey({ clusterKeyFile: keyFile }),
      };
      quiet ??= await runAll(cluster, requests);
      const instance = user.startBy(hosts.onSecond, "instance", ...small, ...options);
      await instance.waitForLog(
        new RegExp(`serving.* address=tcp:${hosts.second.replaceAll(".", "\\.")}:\\d+`),
      );
      await manager.waitForLog(/instance-hand-\d+ is ready/);
      const addresses = (await servingInstances(cluster)).map(({ address }) => address);
      assert.deepEqual(
        addresses.map((address) => address.replace(/:\d+$/, "")).sort(),
        [`tcp:${hosts.first}`, `tcp:${hosts.second}`],
      );
      for (let round = 0; moves(manager) < LEAST_MOVES; round++) {
        assert.ok(round < MOST_ROUNDS, `${moves(manager)} moves by ${backend} in ${round} rounds`);
        assertSameStreams(await runAll(cluster, requests), quiet);
      }
      await waitUntilEmpty(cluster, 2);
      assert.equal((await instance.stop()).code, 0);
      assert.equal((await cluster.program.stop()).code, 0);
      assert.equal((await manager.stop()).code, 0);
    }
  },
});

Deno.test("two hosts: an address that others cannot connect to is refused", async () => {
  for (
    const [args, message] of [
      [["--host", "0.0.0.0"], /--host "0\.0\.0\.0": .*expected an IP address of this host/],
      [["--manager-address", "tcp:0.0.0.0:9"], /--manager-address tcp:0\.0\.0\.0:9: .*expected/],
    ] as const
  ) {
    const { code, stderr } = await runProgram(["instance", ...args]);
    assert.equal(code, 2);
    assert.match(stderr, message);
  }
});

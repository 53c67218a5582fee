/**
 * Processes of two hosts: two network namespaces with a link between them. The second host has an
 * instance alone; manager, API server and the other instance are on the first.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { libraries } from "../../ffi/library_search.ts";
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
import { realFiles } from "../ffi/real_libraries.ts";
import { type Program, runProgram, signalIfThere } from "./harness.ts";
import { isLongRun } from "../long.ts";
import { TwoHosts } from "./hosts.ts";
import { User } from "./roles.ts";
import { type StreamResult, variedRequests } from "./streams.ts";

const requests = variedRequests(4, 120);
const LEAST_MOVES = 3;
const MOST_ROUNDS = 20;
const reason = TwoHosts.problem();

/** Processes of two hosts do not see each other's memory, by which kvtransfer would copy: it needs UCX. */
const [ucx] = realFiles(libraries.ucp);
const ownProcesses = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/** rayrpc moves blocks over the connections that the other two need as well. */
const backends = isLongRun
  ? ["rayrpc", "gloo", "grpc", ...(ucx === undefined ? [] : ["kvtransfer"])]
  : ["gloo", "grpc"];

function optionsOf(backend: string, directory: string): readonly string[] {
  if (backend !== "kvtransfer") return ["--migration-backend-server-address", "0.0.0.0:0"];
  const naming = join(directory, "naming");
  Deno.mkdirSync(naming, { mode: 0o700 });
  return [
    ...["--migration-backend-kvtransfer-naming-url", `file:${naming}`, "--migration-insecure"],
    ...["--migration-backend-transfer-type", "rdma"],
  ];
}

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
    for (const backend of backends) {
      const isUcx = backend === "kvtransfer";
      await using user = new User(isUcx ? { LLUMNIX_UCX_LIBRARIES: ucx } : {});
      Deno.mkdirSync(join(user.directory, "llumnix")); // nothing will be there
      const keyFile = join(user.directory, "key");
      assert.equal((await runProgram(["keygen", keyFile])).code, 0);
      const managerAddress = `tcp:${hosts.first}:${freePort()}`;
      const options = [
        ...["--manager-address", managerAddress, "--cluster-key-file", keyFile],
        ...["--enable-migration", "--migration-backend", backend],
        ...optionsOf(backend, user.directory),
      ];
      const manager = user.manager(...restless, ...options);
      const cluster: Cluster = {
        ...await user.cluster(...options),
        managerAddress,
        clusterKey: clusterKey({ clusterKeyFile: keyFile }),
      };
      quiet ??= await runAll(cluster, requests);
      const onSecond = [...hosts.onSecond, ...(isUcx ? ownProcesses : [])];
      const instance = user.startBy(onSecond, "instance", ...small, ...options);
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
      // `unshare` passes no signal on.
      for (const { pid, command } of instance.processes()) {
        if (!command.startsWith("unshare ")) signalIfThere(pid, "SIGTERM");
      }
      assert.equal((await instance.end()).code, 0);
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

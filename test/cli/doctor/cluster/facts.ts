/** What `llumnix doctor --cluster` finds where all is well; tests change a part of it. */
import type { Facts } from "../../../../src/cli/doctor/cluster/verdict.ts";
import type {
  AddressReport,
  HostReport,
  PathReport,
} from "../../../../src/cli/doctor/cluster/report.ts";

export function addressOf(who: string, host: string, more: Partial<AddressReport> = {}) {
  const address = `tcp:10.0.0.${host.charCodeAt(0)}:9000`;
  return {
    who,
    host,
    address,
    isLoopback: false,
    process: { process: `${who} of ${host}`, hostName: host, version: "1", timeMs: 0 },
    clock: { aheadMs: 0, uncertaintyMs: 1.5, roundTripMs: 1 },
    failure: null,
    ...more,
  } satisfies AddressReport;
}

/** An address that does not answer. */
export const silent = { process: null, clock: null, failure: "no answer in 2000 ms" };

export function hostOf(host: string, more: Partial<HostReport> = {}): HostReport {
  return {
    host,
    agent: "present",
    slots: 1,
    instances: 1,
    versions: ["1"],
    clock: { aheadMs: 0.2, uncertaintyMs: 1 },
    roundTripMs: 1,
    numAddresses: 2,
    numReached: 2,
    failure: null,
    ...more,
  };
}

export function pathOf(from: string, to: string, megabytesPerSecond: number): PathReport {
  const speed = {
    address: `tcp:${to}:1`,
    roundTripMs: 0.5,
    bytesPerSecond: megabytesPerSecond * 1e6,
    bytes: 1e6,
    ms: 300,
  };
  return { from, to, speed, failure: null };
}

/** Of two hosts, `a` and `b`. */
export const well: Facts = {
  schema: 1,
  version: "1",
  cluster: "etcd://10.0.0.9",
  tookMs: 3_000,
  store: {
    name: "etcd at 10.0.0.9:2379",
    server: "etcd 3.5.16",
    place: "keys below /llumnix/llumnix/",
    readMs: 0.5,
    writeMs: 1.5,
    failure: null,
    writeFailure: null,
  },
  leader: {
    state: "leads",
    epoch: 3,
    process: "leader of a",
    address: "tcp:10.0.0.97:9000",
    leaseMs: 1_500,
    beatMs: 400,
    watchedMs: 3_000,
    hasChanged: false,
    failure: null,
  },
  settings: { model: "tiny", dtype: "float32", maxModelLen: 2_048 },
  hosts: [hostOf("a"), hostOf("b")],
  addresses: [
    addressOf("leader", "a"),
    addressOf("manager", "b"),
    addressOf("instance-0", "a"),
    addressOf("instance-1", "b"),
  ],
  endedManagers: [],
  numAddressesOmitted: 0,
  refusals: [],
  paths: [pathOf("a", "b", 500), pathOf("b", "a", 100)],
  numPathsOmitted: 0,
  crossover: {
    from: "b",
    to: "a",
    bytesPerToken: 1_000,
    movedTokensPerSecond: 100_000,
    prefillTokensPerSecond: 5_000,
    faster: "move",
  },
};

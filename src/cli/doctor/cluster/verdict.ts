/** What is wrong in a cluster, from what was found there. */
import { CALLS_PER_LEASE } from "../../../cluster/leadership/candidate.ts";
import { settingsDifference } from "../../../core/served_settings.ts";
import type { AddressReport, ClusterDoctorReport } from "./report.ts";

export type Facts = Omit<ClusterDoctorReport, "problems" | "warnings">;

/** Clocks that differ more bring log lines and traces of hosts out of order. */
const MAX_CLOCK_MS = 1_000;

/** What has to be put right. */
export function problemsOf(facts: Facts): string[] {
  return [
    ...storeProblems(facts),
    ...leaderProblems(facts),
    ...addressProblems(facts),
    ...hostProblems(facts),
    ...facts.refusals.map(({ host, address, reason, agoMs }) =>
      `host ${host} at ${address} was refused ${seconds(agoMs)} ago: ${reason}`
    ),
    ...facts.paths.flatMap(({ from, to, failure }) =>
      failure === null ? [] : [`the path from ${from} to ${to} could not be measured: ${failure}`]
    ),
  ];
}

/** What may be as it should be. */
export function warningsOf(facts: Facts): string[] {
  return [
    ...storeWarnings(facts),
    ...leaderWarnings(facts),
    ...clockWarnings(facts),
    ...versionWarnings(facts),
    ...pathWarnings(facts),
  ];
}

function storeProblems({ store: { failure, writeFailure } }: Facts): string[] {
  if (failure !== null) return [`the lease store cannot be used: ${failure}`];
  if (writeFailure === null) return [];
  return [
    `the lease store can be read and not written: ${writeFailure}. Managers have to write there ` +
    "(--cluster-credentials)",
  ];
}

function leaderProblems({ cluster, store, leader, endedManagers }: Facts): string[] {
  const { state, address, leaseMs, watchedMs, failure } = leader;
  const start = `Start llumnix serve --cluster ${cluster} on each host`;
  const problems = endedManagers.map((one) =>
    `a manager stood for election at ${one} a moment ago, and is not there any more: it was killed, or its ` +
    "host is down or cut off"
  );
  if (state === "none" && store.failure === null) {
    problems.push(
      `no manager has led in ${cluster} yet. ${start}, or see whether the name is right`,
    );
  }
  if (state === "resigned") {
    problems.push(`the leader has resigned, and no manager has taken its place. ${start}`);
  }
  if (state === "silent") {
    problems.push(
      `the leader's record has not changed for ${seconds(watchedMs)}, and its lease is ` +
        `${
          seconds(leaseMs!)
        }: the manager at ${address} has ended or does not reach the store, and no ` +
        `other one takes over. ${start}`,
    );
  }
  if (failure !== null && state !== "silent") {
    problems.push(`the leader, which advertises ${address}, could not be examined: ${failure}`);
  }
  return problems;
}

function addressProblems({ addresses, leader, settings }: Facts): string[] {
  // On one machine, such as for a test, loopback addresses are right.
  const isSpread = addresses.some((one) => !one.isLoopback && one.address.startsWith("tcp:"));
  return addresses.flatMap((one) => {
    const { who, address, isLoopback, process, failure } = one;
    const name = nameOf(one);
    if (isLoopback && isSpread) {
      return [
        `${name} advertises ${address}, where no other host can reach it. ${remedyOf(one)}`,
      ];
    }
    if (failure !== null) {
      if (who === "leader" && leader.failure !== null) return [];
      return [`${name} advertises ${address}, and cannot be reached there from here: ${failure}`];
    }
    const difference = settings !== null && process?.settings &&
      settingsDifference(process.settings, settings, name, "the cluster");
    return difference ? [`${difference}: give all hosts the same`] : [];
  });
}

function nameOf({ who, host }: AddressReport): string {
  const name = who === "leader" || who === "manager" ? `the ${who}` : who;
  return host === null ? name : `${name} on host ${host}`;
}

function remedyOf({ who }: AddressReport): string {
  return who === "leader" || who === "manager"
    ? "Give --cluster the store's address on the network, or start it with --manager-address " +
      "tcp:HOST:PORT, HOST being an IP address of its host"
    : "Start its agent with --advertise-host, or the instance with --host: an IP address of its host";
}

function hostProblems({ hosts }: Facts): string[] {
  return hosts.flatMap(({ host, failure }) => failure === null ? [] : [`host ${host}: ${failure}`]);
}

function storeWarnings({ store: { readMs, writeMs }, leader: { leaseMs } }: Facts): string[] {
  const slowestMs = Math.max(readMs ?? 0, writeMs ?? 0);
  if (leaseMs === null || slowestMs < leaseMs / CALLS_PER_LEASE) return [];
  return [
    `a call of the lease store took ${
      slowestMs.toFixed(0)
    } ms at best, and calls may take half of the ` +
    `lease (${seconds(leaseMs)}): raise --cluster-lease on all hosts`,
  ];
}

function leaderWarnings(facts: Facts): string[] {
  const { leader: { hasChanged, state }, addresses, hosts } = facts;
  const warnings: string[] = [];
  if (hasChanged) {
    warnings.push("another manager took over while the cluster was examined: examine it again");
  }
  const followers = addresses.filter(({ who, process }) => who === "manager" && process !== null);
  if (state === "leads" && hosts.length > 1 && followers.length === 0) {
    warnings.push(
      "no other manager follows the leader: if its host is lost, the cluster has no leader",
    );
  }
  if (hosts.length > 1 && addresses.length > 0 && addresses.every(({ isLoopback }) => isLoopback)) {
    warnings.push("all addresses are of this machine alone: a host of another machine cannot join");
  }
  return warnings;
}

function clockWarnings({ hosts }: Facts): string[] {
  return hosts.flatMap(({ host, clock }) => {
    if (clock === null || Math.abs(clock.aheadMs) - clock.uncertaintyMs <= MAX_CLOCK_MS) return [];
    const where = clock.aheadMs > 0 ? "ahead of" : "behind";
    return [
      `the clock of host ${host} is ${
        seconds(Math.abs(clock.aheadMs))
      } ${where} the leader's: log lines ` +
      "and traces of the hosts are out of order. Synchronise the clocks (NTP)",
    ];
  });
}

function versionWarnings({ hosts }: Facts): string[] {
  const hostsOf = new Map<string, string[]>();
  for (const { host, versions } of hosts) {
    for (const version of versions) hostsOf.set(version, [...hostsOf.get(version) ?? [], host]);
  }
  if (hostsOf.size < 2) return [];
  const listed = [...hostsOf].map(([version, names]) => `${version} on ${names.join(", ")}`);
  return [`versions differ: ${listed.join("; ")}. Give all hosts the same executable`];
}

function pathWarnings({ crossover, hosts, paths, numPathsOmitted, leader }: Facts): string[] {
  const warnings: string[] = [];
  if (crossover?.faster === "recompute") {
    warnings.push(
      `over the path from ${crossover.from} to ${crossover.to} a request moves more slowly than it is ` +
        "computed again: start instances with --migration-crossover auto",
    );
  }
  if (numPathsOmitted > 0) {
    const total = numPathsOmitted + paths.length;
    warnings.push(`${paths.length} of ${total} paths between hosts were measured`);
  }
  const apart = hosts.filter(({ agent }) => agent === "none").map(({ host }) => host);
  if (leader.failure === null && leader.state === "leads" && hosts.length > 1 && apart.length > 0) {
    warnings.push(`no agent runs on ${apart.join(", ")}: paths from and to it were not measured`);
  }
  return warnings;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

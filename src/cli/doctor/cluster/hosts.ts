/** What is known of each host of a cluster, put together from its agent and its addresses. */
import type {
  AgentReport,
  ClockDifference,
  ClusterReport,
} from "../../../core/protocol/examination.ts";
import type { AddressReport, HostReport } from "./report.ts";

/**
 * By name. A process that is on no host whose name is known is in none.
 * @param cluster null: no leader said anything
 */
export function hostReports(
  cluster: ClusterReport | null,
  addresses: readonly AddressReport[],
): HostReport[] {
  const agents = new Map(cluster?.hosts.map((agent) => [agent.host, agent]));
  const names = new Set(agents.keys());
  for (const { host } of addresses) if (host !== null) names.add(host);
  for (const { hostName } of cluster?.instances ?? []) if (hostName) names.add(hostName);
  const toLeader = fastest(addresses.filter(({ who }) => who === "leader"));
  return [...names].sort().map((host) => {
    const agent = agents.get(host) ?? null;
    const own = addresses.filter((one) => one.host === host);
    const instances = cluster?.instances.filter(({ hostName }) => hostName === host) ?? [];
    const versions = [
      agent?.process?.version,
      ...own.map(({ process }) => process?.version),
      ...instances.map(({ version }) => version),
    ].filter((version) => version !== undefined);
    return {
      host,
      agent: agent === null ? "none" : agent.process === null ? "away" : "present",
      slots: agent?.slots ?? null,
      instances: agent?.instances ?? instances.length,
      versions: [...new Set(versions)].sort(),
      clock: clockOf(agent, fastest(own), toLeader),
      roundTripMs: fastest(own)?.roundTripMs ?? null,
      numAddresses: own.length,
      numReached: own.filter(({ process }) => process !== null).length,
      failure: agent?.failure ?? null,
    };
  });
}

/** Ahead of the leader's host: as the leader has measured it, else by way of this host. */
function clockOf(
  agent: AgentReport | null,
  own: ClockDifference | null,
  toLeader: ClockDifference | null,
): HostReport["clock"] {
  if (agent?.clock) {
    const { aheadMs, uncertaintyMs } = agent.clock;
    return { aheadMs, uncertaintyMs };
  }
  if (own === null || toLeader === null) return null;
  return {
    aheadMs: own.aheadMs - toLeader.aheadMs,
    uncertaintyMs: own === toLeader ? 0 : own.uncertaintyMs + toLeader.uncertaintyMs,
  };
}

function fastest(addresses: readonly AddressReport[]): ClockDifference | null {
  let best: ClockDifference | null = null;
  for (const { clock } of addresses) {
    if (clock !== null && (best === null || clock.roundTripMs < best.roundTripMs)) best = clock;
  }
  return best;
}

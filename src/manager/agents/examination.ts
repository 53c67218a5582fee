import type { CallHandler, Peer } from "../../bus/bus.ts";
import { examineProcess } from "../../bus/clock_difference.ts";
import {
  LlumnixError,
  OverloadedError,
  RequestError,
  UnavailableError,
} from "../../core/errors.ts";
import {
  type AgentReport,
  type ClusterReport,
  MAX_EXAMINED_HOSTS,
  MAX_EXAMINED_INSTANCES,
  type PathQuestion,
  type PathSpeed,
  type ProcessReport,
} from "../../core/protocol/examination.ts";
import type { InstanceRegistration, ServedSettings } from "../../core/protocol/membership.ts";
import { fullVersion } from "../../core/version.ts";
import type { Authority } from "../authority.ts";
import type { AgentHost } from "./agent_host.ts";
import type { Agents } from "./agents.ts";

const AGENT_TIMEOUT_MS = 2_000;
/** The slowest measurement takes less; see `agent/path_probe.ts`. */
const PATH_TIMEOUT_MS = 12_000;

export interface ExaminationConfig {
  readonly authority: Authority;
  /** Null: this manager starts instances on its own host, and knows no other. */
  readonly agents: Pick<Agents, "all" | "refusals"> | null;
  /** See {@linkcode ProcessReport}. */
  readonly process: string;
  readonly hostName?: string;
  readonly settings?: ServedSettings;
  /** Those that serve. */
  readonly instances: () => readonly InstanceRegistration[];
  /** Limit of each question to an agent; default 2 s. */
  readonly agentTimeoutMs?: number;
}

type Calls = "examine" | "examine_cluster" | "measure_path";

/** What a manager answers to `llumnix doctor --cluster`. */
export class Examination {
  readonly #config: ExaminationConfig;
  #isMeasuring = false;

  readonly calls: { readonly [M in Calls]: CallHandler<M> } = {
    examine: () => ({ data: this.#report() }),
    examine_cluster: async () => ({ data: await this.#examineCluster() }),
    measure_path: async ({ data }) => ({ data: await this.#measurePath(data) }),
  };

  constructor(config: ExaminationConfig) {
    this.#config = config;
  }

  #report(): ProcessReport {
    const { process, hostName, settings } = this.#config;
    return { process, hostName, version: fullVersion(), timeMs: Date.now(), settings };
  }

  /** @throws {UnavailableError} another manager leads */
  async #examineCluster(): Promise<ClusterReport> {
    const { authority, agents, settings, instances, agentTimeoutMs: timeoutMs = AGENT_TIMEOUT_MS } =
      this.#config;
    const decision = authority.demand();
    const hosts = agents?.all ?? [], all = instances();
    const listed = hosts.slice(0, MAX_EXAMINED_HOSTS);
    const reports = await Promise.all(listed.map((host) => examineAgent(host, timeoutMs)));
    return {
      ...decision,
      settings,
      hosts: reports,
      instances: all.slice(0, MAX_EXAMINED_INSTANCES)
        .map(({ instanceId, address, hostName, version }) => ({
          ...{ instanceId, address, hostName, version },
        })),
      refusals: agents?.refusals ?? [],
      numHostsOmitted: hosts.length - listed.length,
      numInstancesOmitted: Math.max(0, all.length - MAX_EXAMINED_INSTANCES),
    };
  }

  /**
   * One at a time: measurements would slow each other, and the service.
   * @throws {RequestError} there is no such host with an agent
   * @throws {OverloadedError} another path is being measured
   * @throws {UnavailableError} another manager leads, or a host cannot take part
   */
  async #measurePath({ from, to }: PathQuestion): Promise<PathSpeed> {
    const decision = this.#config.authority.demand();
    const sender = this.#agent(from), receiver = this.#agent(to);
    if (from === to) throw new RequestError(`a path leads to another host than ${from}`);
    if (this.#isMeasuring) {
      throw new OverloadedError("another path is being measured: one doctor at a time");
    }
    this.#isMeasuring = true;
    try {
      const { data: { address } } = await receiver
        .call("path_receive", { data: decision }, { timeoutMs: AGENT_TIMEOUT_MS })
        .catch((error) => Promise.reject(explained(error, `${to} cannot listen`)));
      const { data } = await sender
        .call("path_send", { data: { ...decision, address } }, { timeoutMs: PATH_TIMEOUT_MS })
        .catch((error) => Promise.reject(explained(error, `${from} cannot send to ${to}`)));
      return data;
    } finally {
      this.#isMeasuring = false;
    }
  }

  #agent(name: string): Peer {
    const host = this.#config.agents?.all.find((one) => one.name === name);
    if (host === undefined) throw new RequestError(`no agent of a host "${name}" has joined`);
    if (host.peer !== null) return host.peer;
    throw new UnavailableError(`the agent of ${name} is away`);
  }
}

async function examineAgent(
  { facts, slots, instances, peer }: AgentHost,
  timeoutMs: number,
): Promise<AgentReport> {
  const { host, address } = facts;
  const common = { host, address, slots, instances };
  const none = { ...common, process: null, clock: null };
  if (peer === null) return { ...none, failure: "its agent has lost the leader, or has ended" };
  try {
    const answer = await examineProcess(peer, { timeoutMs });
    return { ...common, ...answer, failure: null };
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
    return { ...none, failure: `its agent does not answer: ${error.message}` };
  }
}

function explained(error: unknown, what: string): unknown {
  if (!(error instanceof LlumnixError)) return error;
  return new UnavailableError(`${what}: ${error.message}`, { cause: error });
}

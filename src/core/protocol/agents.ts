/**
 * Agent and manager: a host offers room for instances, and the manager orders their start and their end.
 * An agent connects to the manager that leads, and keeps its instances when the connection ends.
 */
import type { InstanceId } from "./generate.ts";
import type { ManagerDecision } from "./leadership.ts";
import type { ServedSettings } from "./membership.ts";
import type { StandingOrders } from "./standing_orders.ts";
import type { InstanceVersion } from "./upgrade.ts";

/** Most instances of one host. */
export const MAX_HOST_SLOTS = 64;

/** What a host has, for people and for the choice of a host. */
export interface HostResources {
  /** CUDA devices that its processes see. */
  readonly cudaDevices: number;
  readonly cores: number;
  readonly memoryBytes: number;
}

/** An instance whose process runs on a host. */
export interface HostedInstance {
  readonly instanceId: InstanceId;
  readonly pid: number;
}

/**
 * Agent to manager, call `agent_join`: when it connects, and again when something here has changed. A
 * manager that knew other instances of the host learns that they have ended.
 */
export interface AgentJoin {
  /** Name of the host; no other host of the cluster has it. */
  readonly host: string;
  /** Where the agent is, for people: IP address, or path of the manager's socket. */
  readonly address: string;
  readonly pid: number;
  /** Counts the joins of the agent's process: an earlier one that comes late says nothing new. Absent: not known. */
  readonly number?: number;
  /** Tells machines apart, and containers of one machine. An agent takes the place of another one of its machine. */
  readonly machine: string;
  readonly resources: HostResources;
  /** Instances that the host can run at once; 0: it takes no more, for its agent is stopping. */
  readonly slots: number;
  /** Instances that the service should have more when the manager first hears of this host. */
  readonly initialInstances: number;
  /** What its instances will serve; absent: only they can tell. */
  readonly settings?: ServedSettings;
  readonly instances: readonly HostedInstance[];
  /** Instances whose start is under way: they take slots. Absent: none. */
  readonly starting?: readonly InstanceId[];
  /** The latest that a manager has sent; absent: none. */
  readonly orders?: StandingOrders;
}

/**
 * Manager to agent, call `agent_start`. The agent knows all other arguments of its instances. An order that
 * comes twice starts one instance, and both get its answer. If the answer is lost, the agent's next
 * `agent_join` tells whether the instance runs.
 */
export interface AgentStart extends ManagerDecision {
  readonly instanceId: InstanceId;
  /** Bus address at which the instance joins the manager. */
  readonly managerAddress: string;
  /** KV blocks of the instance unless an option sets them; null: it measures how many fit. */
  readonly numBlocks: number | null;
  /**
   * The instance takes the place of this one, which stops once the new one serves: if it runs here, the host
   * may have one more instance than slots. Absent: of none that runs.
   */
  readonly replaces?: InstanceId;
}

/** The answer, once the process runs. */
export interface AgentStarted {
  readonly pid: number;
}

/** Manager to agent, notification `agent_signal`. */
export interface AgentSignal extends ManagerDecision {
  readonly instanceId: InstanceId;
  readonly signal: "SIGTERM" | "SIGKILL";
}

/** Agent to manager, notification `agent_exited`: the process of an instance has ended. */
export interface AgentExited {
  readonly instanceId: InstanceId;
  /** Null if a signal ended it, or if it is not known. */
  readonly code: number | null;
  readonly signal: string | null;
}

/**
 * Agent to manager, call `agent_replace`: an instance of this host runs an old executable. The manager stops
 * it, has another one started in its place, and answers when that one serves. It replaces one instance of the
 * cluster at a time; the others wait for their turn.
 */
export interface AgentReplace {
  readonly instanceId: InstanceId;
}

/** Agent to manager, call `agent_versions` without data: which versions do the instances of this host run? */
export interface AgentVersions {
  readonly instances: readonly InstanceVersion[];
}

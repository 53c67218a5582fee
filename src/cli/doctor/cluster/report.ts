/** What `llumnix doctor --cluster` reports. `--json` prints it as it is: fields are added, never renamed. */
import type {
  ClockDifference,
  HostRefusal,
  PathSpeed,
  ProcessReport,
} from "../../../core/protocol/examination.ts";
import type { ServedSettings } from "../../../core/protocol/membership.ts";

export interface ClusterDoctorReport {
  /** Raised when a field changes its meaning or goes away. */
  readonly schema: 1;
  /** Of this executable. */
  readonly version: string;
  /** `--cluster`. */
  readonly cluster: string;
  readonly tookMs: number;
  readonly store: StoreReport;
  readonly leader: LeaderReport;
  /** What all instances serve; null: not known. */
  readonly settings: ServedSettings | null;
  readonly hosts: readonly HostReport[];
  readonly addresses: readonly AddressReport[];
  /** Where managers stood for election that are silent and not there: their entries stay for a while. */
  readonly endedManagers: readonly string[];
  /** Addresses that were not tried, because there are too many. */
  readonly numAddressesOmitted: number;
  readonly refusals: readonly HostRefusal[];
  readonly paths: readonly PathReport[];
  /** Paths between hosts with agents that were not measured: too many, or no time was left. */
  readonly numPathsOmitted: number;
  /** Null: no path was measured, or no instance said what a token costs. */
  readonly crossover: CrossoverReport | null;
  /** What has to be put right. With one, the exit code is 1. */
  readonly problems: readonly string[];
  /** What may be as it should be, and is worth a look. */
  readonly warnings: readonly string[];
}

export interface StoreReport {
  /** Kind and servers. */
  readonly name: string;
  /** Program and version; null: not known. */
  readonly server: string | null;
  /** Where it has this cluster's entries. */
  readonly place: string | null;
  /** Fastest read of several; null: see {@linkcode failure}. */
  readonly readMs: number | null;
  /** Fastest compare-and-set of several; null: see {@linkcode writeFailure}. */
  readonly writeMs: number | null;
  readonly failure: string | null;
  readonly writeFailure: string | null;
}

/** The record of the leader, and the manager at its address. */
export interface LeaderReport {
  /**
   * `leads`: the record changes as a leader changes it. `silent`: it did not change for a lease. `resigned`: the
   * place is free. `none`: no manager has led. `unknown`: the record could not be read, or not for long enough.
   */
  readonly state: "leads" | "silent" | "resigned" | "none" | "unknown";
  readonly epoch: number | null;
  /** Process; null if there is none. */
  readonly process: string | null;
  readonly address: string | null;
  readonly leaseMs: number | null;
  /** Time until the record was seen to change, which is less than its age was; null: it was not. */
  readonly beatMs: number | null;
  /** Another manager took over while the cluster was examined. */
  readonly hasChanged: boolean;
  /** How long the record was watched. */
  readonly watchedMs: number;
  /** Why the manager does not answer, or why its answer does not fit; null: it answers. */
  readonly failure: string | null;
}

/** A host by its name, put together from its agent and the addresses there. */
export interface HostReport {
  readonly host: string;
  /** `present`, `away`, or `none`: an instance or manager there is all that is known. */
  readonly agent: "present" | "away" | "none";
  /** Null without an agent. */
  readonly slots: number | null;
  readonly instances: number;
  /** Of all its processes that said theirs; several during an upgrade. */
  readonly versions: readonly string[];
  /** Ahead of the leader's host; null: not known. */
  readonly clock: Omit<ClockDifference, "roundTripMs"> | null;
  /** From here, to the fastest of its addresses; null: none was reached. */
  readonly roundTripMs: number | null;
  readonly numAddresses: number;
  readonly numReached: number;
  /** Why its agent did not answer; null if it did, or there is none. */
  readonly failure: string | null;
}

/** An address that others are told to connect to, tried from here. */
export interface AddressReport {
  /** `leader`, `manager`, or the name of an instance. */
  readonly who: string;
  /** Null: not known. */
  readonly host: string | null;
  readonly address: string;
  /** No other host can connect to it. */
  readonly isLoopback: boolean;
  readonly process: ProcessReport | null;
  /** Between this host and that one. */
  readonly clock: ClockDifference | null;
  readonly failure: string | null;
}

/** A path between two hosts, in one direction. */
export interface PathReport {
  readonly from: string;
  readonly to: string;
  readonly speed: PathSpeed | null;
  readonly failure: string | null;
}

/** Whether moving a request's KV cache over the slowest path is faster than computing it anew. */
export interface CrossoverReport {
  readonly from: string;
  readonly to: string;
  /** Of the KV cache over all layers. */
  readonly bytesPerToken: number;
  /** Tokens whose KV cache that path moves in a second. */
  readonly movedTokensPerSecond: number;
  /** Of `--prefill-tokens-per-second`, else of the fastest instance; null: no instance has had a prompt. */
  readonly prefillTokensPerSecond: number | null;
  /** Null without a prefill rate. */
  readonly faster: "move" | "recompute" | null;
}

import type { Clock } from "../../core/clock.ts";
import type { MigrationBackendOptions } from "../../core/options.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { MigrationCallName, ReplyOf, RequestOf } from "../../core/protocol/calls.ts";
import type { KvMemory, KvPool } from "../pool/pool.ts";
import type { BackendMessage, MigrationBackend, TransferLimits } from "./backend.ts";

/** A backend by its name in `--migration-backend`. */
export type BackendName = MigrationBackendOptions["migrationBackend"];

/** Options that a backend may exclude. */
export interface BackendOptions extends
  Pick<
    MigrationBackendOptions,
    "migrationBackendTransferType" | "migrationBackendServerAddress"
  > {
  readonly disableInitInstanceByManager: boolean;
  readonly disableFixedNodeInitInstance: boolean;
}

/** A connection to another instance over the bus of the control plane. */
export interface BackendLink {
  call<M extends MigrationCallName>(
    method: M,
    message: BackendMessage<RequestOf<M>>,
    options: { readonly timeoutMs: number },
  ): Promise<BackendMessage<ReplyOf<M>>>;
  close(): Promise<void>;
}

/** Connections to other instances, kept while they are used. */
export interface BackendLinks {
  /**
   * Opens a connection, or takes one that is open.
   * @throws {UnavailableError} nobody answers there
   */
  open(address: string, timeoutMs: number): Promise<BackendLink>;
  close(): Promise<void>;
}

/** What follows from the cluster's key: how processes of different hosts know each other. */
export interface HostSecurity {
  /** Certificate of the authority that signs those of all processes of the cluster, PEM. */
  readonly authority: string;
  /** Of this process, PEM. */
  readonly certificate: string;
  readonly privateKey: string;
  /** The name in the certificates. */
  readonly serverName: string;
  /** Known to the processes of the cluster alone; sent only inside TLS. */
  readonly token: string;
}

/** What a backend is opened with: one instance's end. */
export interface BackendContext {
  readonly instanceId: InstanceId;
  /** What the instance's model is known by; blocks move between instances of one model. */
  readonly model: string;
  /** Its memory is of a kind that the backend names. */
  readonly pool: KvPool;
  readonly limits: TransferLimits;
  readonly options: MigrationBackendOptions;
  /** Where other instances reach this one: an IP address of this host. */
  readonly host: string;
  /**
   * Set if connections between instances leave this host: they must be authenticated and encrypted. Null if
   * they do not, or the operator has switched that off.
   */
  readonly security: HostSecurity | null;
  readonly clock: Clock;
  /** For verification: a peer on the same device is not refused, so that its library may say what it can. */
  readonly mayShareDevice?: boolean;
  /** For backends that send over the bus, which close what this opens. */
  openLinks(): BackendLinks;
}

/**
 * What the rest of the program knows of a migration backend before it opens one. Each backend has a
 * directory with such a record in `kind.ts`, and a line in `backends.ts`. The record holds metadata
 * only; `open` and `runThread` import the implementation when they are called.
 */
export interface BackendKind {
  readonly name: BackendName;
  /** The manager forms a group of all instances, and tells them of each change: `MigrationBackend.join`. */
  readonly needsGroup: boolean;
  /**
   * Connections between hosts are neither authenticated nor encrypted. Where the cluster has a key, such a
   * backend needs an option that says so.
   */
  readonly isPlain?: boolean;
  /** Kinds of pool that it moves blocks between. */
  readonly memory: readonly KvMemory[];
  /** Why it cannot work with these options; null when it can. */
  check?(options: BackendOptions): string | null;
  /**
   * What this host lacks for it to move blocks between pools of this kind, for reports that open no
   * instance; null if it lacks nothing. Absent: it works on every host.
   */
  hostProblem?(memory: "host" | "device"): Promise<string | null>;
  /**
   * Opens one instance's end.
   * @throws {UsageError} this host or these options do not allow it
   * @throws {UnavailableError} it cannot be opened now
   */
  open(context: BackendContext): Promise<MigrationBackend>;
  /** Runs a worker that {@linkcode startBackendThread} started, for backends with a thread. */
  runThread?(): Promise<void>;
}

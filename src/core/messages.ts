/**
 * Every record that crosses a process boundary, in one place. All are plain JSON data.
 *
 * A request is owned by exactly one instance at a time. Its output tokens carry their index, so that
 * the API server delivers each of them once and in order, whatever moves or dies.
 */
import type { ErrorRecord } from "./errors.ts";

export type InstanceId = string;
export type RequestId = string;

/** High-priority requests run first, and instances keep headroom for them. */
export type Priority = "high" | "normal";

/** How the tokens of one sequence are chosen. Field meanings are vLLM 0.4.2's; all are resolved. */
export interface SamplingParams {
  /** Most output tokens; >= 1. */
  readonly maxTokens: number;
  /** Output tokens before an end-of-sequence or stop token may be chosen. */
  readonly minTokens: number;
  /** 0 means greedy. */
  readonly temperature: number;
  /** In (0, 1]; 1 keeps all. */
  readonly topP: number;
  /** -1 keeps all. */
  readonly topK: number;
  /** In [0, 1]; 0 keeps all. */
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 1 means none. */
  readonly repetitionPenalty: number;
  /** Safe integer >= 0; always present, so that a moved or resumed request draws the same numbers. */
  readonly seed: number;
  /** Tokens that end the output, besides the model's end-of-sequence tokens. */
  readonly stopTokenIds: readonly number[];
  /** The model's end-of-sequence tokens. */
  readonly eosTokenIds: readonly number[];
  readonly ignoreEos: boolean;
  /** Alternatives reported per output token; null reports no log probabilities at all. */
  readonly logprobs: number | null;
  /** The same for prompt tokens. */
  readonly promptLogprobs: number | null;
}

/** API server to instance: run this. */
export interface GenerateRequest {
  readonly requestId: RequestId;
  /** The API server that receives the output. */
  readonly frontendId: string;
  readonly promptTokenIds: readonly number[];
  /** Tokens already produced elsewhere; generation goes on after them. */
  readonly outputTokenIds: readonly number[];
  readonly params: SamplingParams;
  /** Milliseconds since the epoch; FCFS order everywhere. */
  readonly arrivalMs: number;
  /** Default normal. */
  readonly priority?: Priority;
  /** Default 0. See {@linkcode OwnershipEpoch}. */
  readonly epoch?: OwnershipEpoch;
  /** See {@linkcode DispatchReply}; default none. */
  readonly expectedSteps?: number;
  /** Its outputs are to have {@linkcode RequestOutput.timing}. */
  readonly timestamps?: boolean;
}

/**
 * Grows whenever another instance may have become the owner of a request: by 1 at every migration,
 * to the next multiple of {@linkcode RESUME_EPOCH} when the API server resumes it elsewhere. Where two instances
 * both believe that they own a request, after a lost message or a partition, the higher epoch is
 * right, and the API server aborts it at the other.
 */
export type OwnershipEpoch = number;

/** More than a request can migrate between two resumptions. */
export const RESUME_EPOCH = 65536;

/** Log probability of one token and of the best alternatives at its position. */
export interface TokenLogprobs {
  readonly tokenId: number;
  /** Natural logarithm; null for -inf, which JSON cannot carry. */
  readonly logprob: number | null;
  /** 1 for the most likely token. */
  readonly rank: number;
  /** Best alternatives, most likely first. */
  readonly top: readonly (readonly [tokenId: number, logprob: number | null])[];
}

/** `stop`: an end or stop token; `length`: maxTokens or the model's limit; `abort`; `error`. */
export type FinishReason = "stop" | "length" | "abort" | "error";

/** Why a request ended. */
export interface Finish {
  readonly reason: FinishReason;
  /** The stop token that ended it, when it was not an end-of-sequence token. */
  readonly stopTokenId?: number;
  /** Set with reason `error`. */
  readonly error?: ErrorRecord;
}

/** Instance to API server: what one or more steps produced for one request. */
export interface RequestOutput {
  readonly requestId: RequestId;
  /** Index in the request's output of the first of `tokenIds`. */
  readonly index: number;
  readonly tokenIds: readonly number[];
  /**
   * Epoch under which they were produced; absent means 0. An instance that takes a request over says
   * so at once, with an output without tokens.
   */
  readonly epoch?: OwnershipEpoch;
  /** One per token id, when asked for. */
  readonly logprobs?: readonly TokenLogprobs[];
  /** One per prompt token (null for the first), with the first output. */
  readonly promptLogprobs?: readonly (TokenLogprobs | null)[];
  /** Set on the last output of the request, exactly once. */
  readonly finish?: Finish;
  /** Where it was asked for. */
  readonly timing?: OutputTiming;
}

/**
 * When the tokens of an output passed each hop of their way: milliseconds since the epoch by the clock
 * of the process that they passed, filled in as they pass.
 */
export interface OutputTiming {
  /** How long the engine step took in which they were made. */
  readonly stepMs: number;
  /** The engine had the step's result. */
  readonly steppedMs: number;
  /** The instance handed them to its connection to the API server. */
  readonly sentMs?: number;
  /** The API server had them. */
  readonly receivedMs?: number;
}

/** `both`: no disaggregation. */
export type InstanceType = "both" | "prefill" | "decode";

/**
 * State of an instance after a scheduling or engine step (behaviour page, section 1). Blocks are KV
 * blocks of the device pool.
 */
export interface InstanceInfo {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  /** Milliseconds since the epoch. */
  readonly timestampMs: number;
  readonly stepId: number;
  readonly totalBlocks: number;
  readonly freeBlocks: number;
  readonly usedBlocks: number;
  readonly watermarkBlocks: number;
  readonly runningRequests: number;
  /** Those of the running requests that have high priority. */
  readonly runningHighPriorityRequests: number;
  /** Those of the running requests that have run their expected steps, and are to leave. */
  readonly leavingRequests: number;
  readonly waitingRequests: number;
  /** Requests preempted (swapped or to be recomputed) and not yet running again. */
  readonly killedRequests: number;
  /** Fractional: prompt length / block size. */
  readonly firstWaitingBlocks: number;
  /**
   * Of the first {@linkcode MAX_LISTED_WAITING} of the queue, in its order, those that may be the first
   * to fit somewhere.
   */
  readonly waiting: readonly QueuedRequest[];
  readonly allWaitingBlocks: number;
  /** Of the prompts that are being computed; fractional. */
  readonly prefillBlocks: number;
  readonly firstWaitingMs: number;
  readonly lastRunningBlocks: number;
  readonly lastStepKind: "prefill" | "decode" | "idle";
  readonly lastStepBatchedTokens: number;
  readonly lastStepSequences: number;
  /** Lengths of its sequences together: what its attention reads. */
  readonly lastStepContextTokens: number;
  readonly lastStepLatencyMs: number;
  readonly runningSequenceLengths: readonly number[];
  /** Most output tokens of the running requests together, as they asked for. */
  readonly maxOutputTokens: number;
  readonly finishedRequestIds: readonly RequestId[];
  /**
   * Requests that arrived from API servers since the report before, queued or refused: this report
   * is the first that counts their load.
   */
  readonly receivedRequestIds: readonly RequestId[];
  readonly totals: InstanceTotals;
}

/** A report looks at no more of those that wait, so that it stays small however long the queue is. */
export const MAX_LISTED_WAITING = 64;

/** A request in the queue of an instance. */
export interface QueuedRequest {
  readonly requestId: RequestId;
  /** That it needs; fractional. */
  readonly blocks: number;
  readonly arrivalMs: number;
}

/** What an instance has done since it started. */
export interface InstanceTotals {
  /** Tokens of prefills, recomputations after preemptions included. */
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly preemptions: number;
}

/** What all instances of a service have in common: else the same request has other answers. */
export interface ServedSettings {
  /** Real path of the model's directory, else its name. */
  readonly model: string;
  readonly dtype: string;
  /** Longest prompt + output in tokens. */
  readonly maxModelLen: number;
}

/** What an instance tells the manager when it is ready to serve. */
export interface InstanceRegistration extends ServedSettings {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  /** Bus address at which the instance serves. */
  readonly address: string;
  readonly pid: number;
  /** Tells its process from others of that pid, also on other hosts; absent: not known. */
  readonly processStart?: string;
  /** What executes: "cpu (avx512bf16, 2 threads)", "null", ... */
  readonly executor: string;
  readonly blockSize: number;
  readonly totalBlocks: number;
  readonly swapBlocks: number;
  /**
   * A step that hangs is noticed, and the instance ends, after so long at the latest. Null: steps may
   * take any time; absent: not known.
   */
  readonly longestStepMs?: number | null;
  /** What moves its requests; absent: they stay where they are. */
  readonly migration?: MigrationRegistration;
  /** Why that has ended. */
  readonly migrationFailure?: string;
}

/** A migration backend, as the manager and other instances know it. */
export interface MigrationRegistration {
  /** As in `--migration-backend`. */
  readonly backend: string;
  /** How its peers reach it: JSON data that only the same kind of backend reads. */
  readonly endpoint: Readonly<Record<string, unknown>>;
}

/**
 * Manager to instance, call `migration_group`, for backends whose instances form a group: take part in
 * it, in place of the one before. Answered by {@linkcode MigrationGroupReply}.
 */
export interface MigrationGroup {
  /** What members know each other by. */
  readonly secret: string;
  /** Grows whenever members come or go. */
  readonly generation: number;
  /** By rank. */
  readonly members: readonly MigrationGroupMember[];
}

export interface MigrationGroupMember {
  readonly instanceId: InstanceId;
  readonly rank: number;
  readonly endpoint: MigrationRegistration["endpoint"];
}

export interface MigrationGroupReply {
  readonly failedPeers: readonly FailedPeer[];
}

/** A member of a group that another could not connect to. */
export interface FailedPeer {
  readonly instanceId: InstanceId;
  readonly reason: string;
}

/** Instance to API server, notification `outputs`: what one step produced for its requests. */
export interface OutputBatch {
  readonly outputs: readonly RequestOutput[];
}

/** API server to instance, notification `abort`: drop these requests. Unknown ids are ignored. */
export interface AbortNotice {
  readonly requestIds: readonly RequestId[];
  /**
   * Only where it holds them under this epoch or a lower one, so that an abort which is late does not
   * hit a request that has come back since; absent: whatever the epoch.
   */
  readonly upToEpoch?: OwnershipEpoch;
}

/**
 * API server to instance, call `missing`, about requests that it has not heard of for a while:
 * which of them does the instance not have (any more)?
 */
export interface MissingRequest {
  readonly requestIds: readonly RequestId[];
}

export interface MissingReply {
  readonly requestIds: readonly RequestId[];
}

/**
 * Instance to manager, call `join`, before anything is loaded; and again, followed by `register`,
 * when it has lost the manager's connection and serves.
 */
export interface JoinRequest {
  readonly instanceId: InstanceId;
  /** Tells a process from others that have had the name, or would have it. */
  readonly incarnation?: string;
  /** It serves already: a manager that does not know it, because it is new itself, takes it in. */
  readonly isRunning?: boolean;
  /** What it will register with again; where it serves already. */
  readonly registration?: InstanceRegistration;
  /** Who started it; default: the manager, which then expects it. */
  readonly startedBy?: "manager" | "api-server" | "hand";
}

export interface JoinReply {
  /** Least time between two pushes of {@linkcode InstanceInfo}. */
  readonly infoIntervalMs: number;
  /** What the instance is to be, unless it serves already. */
  readonly instanceType: InstanceType;
}

/**
 * Instance to manager, call `leave` without data: its process was asked to stop, and it would drain
 * first. Answered at once.
 */
export interface LeaveReply {
  /** False: the whole service is about to end, and until then the instance is to serve on. */
  readonly mayLeave: boolean;
}

/** Instance to manager, notification `progress`, while it loads. For people. */
export interface InstanceProgress {
  readonly instanceId: InstanceId;
  /** "weights", "kv-cache", ... */
  readonly phase: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What is going on, without the numbers. */
  readonly detail: string;
}

/** Manager to API server, notification `instances`: before the answer to `subscribe`, and on change. */
export interface InstanceList {
  /** Counts a manager's lists: of two that come over one connection, the greater is the newer. */
  readonly version: number;
  readonly instances: readonly InstanceRegistration[];
  /** Instances that were asked for. */
  readonly expectedInstances: number;
  /** False: all of them drain, and requests wait. Default true. */
  readonly takesRequests?: boolean;
  /** The latest of those that went because they were to: nothing that they had is to blame. */
  readonly stopped?: readonly InstanceId[];
  /** What all instances serve, also those that are to come; absent: not known. */
  readonly settings?: ServedSettings;
}

/** API server to manager, call `dispatch`: what a policy may know of a request. */
export interface DispatchRequest {
  readonly requestId: RequestId;
  readonly promptTokens: number;
  /** Default normal. */
  readonly priority?: Priority;
  /** The API server that would try whether instances die of the request; absent: nobody thinks so. */
  readonly triedBy?: string;
}

/** An API server has requests of which it is not known yet whether instances die of them. */
export interface SuspicionNote {
  readonly frontendId: string;
}

export interface DispatchReply {
  readonly instanceId: InstanceId;
  /** Engine steps after which the request is to go on at another instance; default none. */
  readonly expectedSteps?: number;
}

export type MigrationId = string;

/** Which request leaves an instance (behaviour page, section 3). */
export type RequestMigrationPolicy = "LCR" | "SR" | "LR" | "FCW" | "FCWSR" | "FIT";

/** What an instance can take, by its last report. */
export interface DestinationRoom {
  readonly blocks: number;
  /** Of the head of its queue: what waits may come only if it is older. Null where nothing waits. */
  readonly firstArrivalMs: number | null;
}

/**
 * What an order of pair migration policy `waiting_first` is for: one that waits goes where it fits
 * (`waiting`), one that runs makes room for the head of the queue (`room`), the shortest that runs
 * leaves before one is preempted (`shortest`).
 */
export type MigrationAim = "waiting" | "room" | "shortest";

/** An instance that blocks can be sent to. */
export interface MigrationDestination {
  readonly instanceId: InstanceId;
  /** Bus address at which it serves. */
  readonly address: string;
}

/** Manager to source instance, call `migrate_out`; answered by a {@linkcode MigrationReport}. */
export interface MigrateOutOrder {
  readonly migrationId: MigrationId;
  readonly destination: MigrationDestination;
  readonly policy: RequestMigrationPolicy;
  /** Of the destination; policy `FIT` chooses by it. */
  readonly room?: DestinationRoom;
  /** Policy `FIT` chooses nothing else; default what the source needs most. */
  readonly aim?: MigrationAim;
  /** Most requests that leave by this order; default all that have run their expected steps. */
  readonly maxRequests?: number;
  /**
   * Without an aim this very request leaves, whatever the policy says. With aim `waiting` policy
   * `FIT` chooses it or nothing: it may have come to run, or not fit any more.
   */
  readonly requestId?: RequestId;
  /**
   * The source drains, or requests wait there for the room: its requests leave as fast as they can,
   * whatever that takes from the others.
   */
  readonly isUrgent?: boolean;
}

/**
 * `committed`: the destination owns the request. `nothing`: no request could leave. `finished`: it ended here in the meantime.
 * `aborted_source`, `aborted_destination`: it stays where it was, and why is in `reason`.
 */
export type MigrationOutcome =
  | "committed"
  | "nothing"
  | "finished"
  | "aborted_source"
  | "aborted_destination";

/** How a migration went. */
export interface MigrationReport {
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  readonly destinationId: InstanceId;
  /** Null with `nothing`. */
  readonly requestId: RequestId | null;
  readonly outcome: MigrationOutcome;
  readonly reason: string;
  /** Tokens of the request when it left. */
  readonly lengthTokens: number;
  readonly stages: number;
  readonly blocks: number;
  readonly transfer: TransferStatistics;
  /** From leaving the source's running queue until it was running at the destination. */
  readonly downtimeMs: number;
  readonly totalMs: number;
  /** Committed: when it left, by the clock of the source's {@linkcode InstanceInfo}. */
  readonly leftMs?: number;
  /** Migrations of the same order that were committed before this one. */
  readonly earlier?: readonly MigrationReport[];
}

/** What a migration backend did. */
export interface TransferStatistics {
  readonly bytes: number;
  /** Contiguous runs that were copied. */
  readonly descriptors: number;
  /** Rounds of at most `--migration-buffer-blocks` blocks and `--migration-num-layers` layers. */
  readonly rounds: number;
  readonly transferMs: number;
}

/** Source to destination instance, call `migrate_in`: may this request come? Opens the migration. */
export interface MigrateInRequest {
  readonly migrationId: MigrationId;
  readonly sourceId: InstanceId;
  readonly requestId: RequestId;
  readonly arrivalMs: number;
  readonly lengthTokens: number;
  /** A waiting request has no blocks; it takes its place in the destination's queue. */
  readonly isWaiting: boolean;
  readonly model: string;
  /** Name of the migration backend; it must equal the destination's. */
  readonly backend: string;
  /** A `KvLayout`; it must equal the destination's. */
  readonly layout: Readonly<Record<string, string | number>>;
}

/** Answer to `migrate_in`: how the source's backend reaches the destination's pool. */
export interface MigrateInReply {
  readonly endpoint: Readonly<Record<string, unknown>>;
}

/** Source to destination, call `migrate_reserve`: take `blocks` more blocks for this migration. */
export interface MigrateReserveRequest {
  readonly migrationId: MigrationId;
  /** 0 for the first. A repeated stage is answered as before. */
  readonly stage: number;
  readonly blocks: number;
  /** So many are likely to follow: their memory can be made ready. Absent: none. */
  readonly nextBlocks?: number;
}

export interface MigrateReserveReply {
  /** In the order of the request's block table. */
  readonly blocks: readonly number[];
}

/**
 * Source to destination, call `migrate_commit`: the request is yours. Answered the same however often
 * it is repeated; refused when the migration was cancelled or is not known.
 */
export interface MigrateCommitRequest {
  readonly migrationId: MigrationId;
  /** With all output so far, and the new epoch. */
  readonly request: GenerateRequest;
}

/**
 * Source to destination, call `migrate_settle` after a commit without an answer: says whether the
 * destination owns the request. After `cancelled` a commit that is still under way is refused.
 */
export interface MigrateSettleReply {
  readonly state: "committed" | "cancelled";
}

/**
 * Manager to instance or API server, call `requests`: what the instance has of these, or of all; which
 * of them wait in the API server for an instance.
 */
export interface RequestsQuery {
  readonly requestIds?: readonly RequestId[];
}

export interface RequestsReply {
  /** Those that came first. */
  readonly requests: readonly RequestStatus[];
  /** How many more there are. */
  readonly numOmitted: number;
}

/** Of an instance or an API server; the others are counted. */
export const MAX_LISTED_REQUESTS = 1_000;

/** A request as its instance sees it, for people; while it has none, as its API server does. */
export interface RequestStatus {
  readonly requestId: RequestId;
  readonly instanceId: InstanceId | null;
  readonly priority: Priority;
  /** `suspended`: on its way to another instance. */
  readonly state: "waiting" | "running" | "swapped" | "suspended" | "finished";
  readonly promptTokens: number;
  /** So far. */
  readonly outputTokens: number;
  /** Since it came to the service. */
  readonly ageMs: number;
}

/** An instance as the manager sees it, for people. */
export interface InstanceStatus {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  readonly state: InstanceState;
  /** Null until it is known; as all that follows. */
  readonly pid: number | null;
  readonly totalBlocks: number | null;
  readonly usedBlocks: number | null;
  /** Dispatch load; infinities as "inf" and "-inf". */
  readonly load: number | "inf" | "-inf" | null;
  readonly runningRequests: number | null;
  readonly waitingRequests: number | null;
  /** Preempted, and not running again yet. */
  readonly killedRequests: number | null;
}

/**
 * `draining`: it takes no requests and gives away those that it has; `drained`: it has none any more;
 * `unreachable`: its connection to the manager ended, and may come back.
 */
export type InstanceState =
  | "starting"
  | "serving"
  | "draining"
  | "drained"
  | "stopping"
  | "unreachable";

/** What was begun, and goes on. */
export interface InstanceChange {
  readonly instanceId: InstanceId;
  readonly state: InstanceState;
}

export interface InstanceName {
  readonly instanceId: InstanceId;
}

/** API server to manager: the calls of whoever operates the service, what they say and are told. */
export interface AdminCalls {
  readonly admin_instances: readonly [ask: null, answer: readonly InstanceStatus[]];
  readonly admin_requests: readonly [ask: null, answer: AdminRequests];
  readonly admin_add: readonly [ask: null, answer: InstanceChange];
  readonly admin_drain: readonly [ask: InstanceName, answer: InstanceChange];
  /** Ends the draining. */
  readonly admin_keep: readonly [ask: InstanceName, answer: InstanceChange];
  readonly admin_remove: readonly [ask: InstanceName, answer: InstanceChange];
  readonly admin_migrate: readonly [ask: AdminMigration, answer: MigrationReport];
}

export interface AdminRequests extends RequestsReply {
  /** Instances that did not answer. */
  readonly unreachable: readonly InstanceId[];
}

export interface AdminMigration {
  readonly requestId: RequestId;
  readonly destinationId: InstanceId;
}

/** Makes a call of {@linkcode AdminCalls}. Rejects with the manager's error. */
export type AdminCall = <M extends keyof AdminCalls>(
  method: M,
  ask: AdminCalls[M][0],
) => Promise<AdminCalls[M][1]>;

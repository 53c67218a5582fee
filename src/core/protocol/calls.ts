/**
 * Every call and every notification between the roles, one line each: what it carries, and how that is
 * checked when it comes from another process. The types are explained in the file of their conversation.
 */
import { type Check, nothing } from "./check.ts";
import * as admin from "./schemas/admin.ts";
import * as agents from "./schemas/agents.ts";
import * as dispatch from "./schemas/dispatch.ts";
import * as examination from "./schemas/examination.ts";
import * as generate from "./schemas/generate.ts";
import { packInstanceInfo, readInstanceInfo } from "./schemas/instance_info.ts";
import * as leadership from "./schemas/leadership.ts";
import * as membership from "./schemas/membership.ts";
import * as migration from "./schemas/migration.ts";
import * as monitoring from "./schemas/monitoring.ts";
import * as standingOrders from "./schemas/standing_orders.ts";
import * as upgrade from "./schemas/upgrade.ts";

/**
 * Goes up with every change that an older process would misunderstand. Both ends of a connection have
 * to have the same: a connection between others is refused, and both versions are named.
 */
export const PROTOCOL_VERSION = 4;

interface Call<Request, Reply> {
  readonly request: Check<Request>;
  readonly reply: Check<Reply>;
}

function call<Request, Reply>(request: Check<Request>, reply: Check<Reply>): Call<Request, Reply> {
  return { request, reply };
}

export const calls = {
  // Instance to manager.
  join: call(membership.joinRequest, membership.joinReply),
  register: call(membership.instanceRegistration, nothing),
  drain: call(nothing, membership.drainReply),

  // API server to manager.
  subscribe: call(nothing, nothing),
  dispatch: call(dispatch.dispatchRequest, dispatch.dispatchReply),
  cluster_events: call(monitoring.eventsQuery, monitoring.eventsReply),
  cluster_state: call(nothing, monitoring.clusterState),
  operator_challenge: call(nothing, admin.operatorChallenge),
  operator_prove: call(admin.operatorProof, nothing),
  admin_instances: call(nothing, admin.instanceStatuses),
  admin_requests: call(nothing, admin.adminRequests),
  admin_add: call(nothing, admin.instanceChange),
  admin_drain: call(admin.instanceName, admin.instanceChange),
  admin_keep: call(admin.instanceName, admin.instanceChange),
  admin_remove: call(admin.instanceName, admin.instanceChange),
  admin_migrate: call(admin.adminMigration, migration.migrationReport),
  admin_hosts: call(nothing, admin.hostStatuses),
  admin_drain_host: call(admin.hostDrainOrder, admin.hostStatusReply),
  admin_keep_host: call(admin.hostName, admin.hostStatusReply),

  // Agent to manager.
  agent_join: call(agents.agentJoin, agents.agentJoined),
  agent_replace: call(agents.agentReplace, nothing),
  agent_versions: call(nothing, agents.agentVersions),

  // Manager to agent.
  agent_start: call(agents.agentStart, agents.agentStarted),
  path_receive: call(leadership.managerDecision, examination.pathEnd),
  path_send: call(examination.pathOrder, examination.pathSpeed),

  // Agent to agent, with a payload of which only the length counts.
  path_bytes: call(nothing, nothing),

  // Command `llumnix doctor --cluster` to a manager that leads; `examine` to any manager and instance, and
  // from the manager to agents.
  examine: call(nothing, examination.processReport),
  examine_cluster: call(nothing, examination.clusterReport),
  measure_path: call(examination.pathQuestion, examination.pathSpeed),

  // Manager to instance and to agent.
  keep_orders: call(standingOrders.keepOrders, nothing),

  // Instance to every manager of its cluster.
  hear: call(leadership.presence, nothing),

  // Manager that follows to manager that leads.
  identify: call(nothing, leadership.processIdentity),

  // Manager to instance; `requests` also to API servers, and `ping` from anyone.
  ping: call(nothing, nothing),
  requests: call(admin.requestsQuery, admin.requestsReply),
  migrate_out: call(migration.migrateOutOrder, migration.migrationReport),
  migration_group: call(migration.migrationGroup, migration.migrationGroupReply),
  handover: call(upgrade.managerHandover, nothing),

  // API server to instance.
  hello: call(generate.hello, nothing),
  generate: call(generate.generateRequest, nothing),
  missing: call(generate.missingRequest, generate.missingReply),
  take: call(generate.takeRequest, generate.takeReply),
  status: call(nothing, readInstanceInfo),

  // Source instance to destination instance.
  migrate_in: call(migration.migrateInRequest, migration.migrateInReply),
  migrate_reserve: call(migration.migrateReserveRequest, migration.migrateReserveReply),
  migrate_blocks: call(migration.blockRound, nothing),
  migrate_pull: call(migration.blockPull, nothing),
  migrate_backend: call(migration.backendCall, migration.backendAnswer),
  migrate_commit: call(migration.migrateCommitRequest, nothing),
  migrate_settle: call(migration.migrationName, migration.migrateSettleReply),

  // Command `llumnix upgrade` to a process that serves.
  upgrade: call(upgrade.upgradeOrder, upgrade.upgraded),
  upgrade_status: call(nothing, upgrade.upgradeStatus),

  // Successor to predecessor.
  take_over: call(upgrade.takeOver, upgrade.handover),
  taken_over: call(nothing, nothing),
};

export const notifications = {
  // Instance to manager.
  progress: membership.instanceProgress,
  info: readInstanceInfo,
  failed: membership.instanceFailure,

  // API server to manager.
  isolating: dispatch.isolationNotice,
  resumed: monitoring.resumeNotice,

  // Agent to manager.
  agent_exited: agents.agentExited,

  // Manager to agent.
  agent_signal: agents.agentSignal,

  // Manager to API server.
  instances: membership.instanceList,

  // Manager to instance.
  shutdown: leadership.managerDecision,
  report_interval: membership.reportInterval,
  stay: leadership.managerDecision,
  keep: leadership.managerDecision,

  // Instance, API server or agent to manager: it has refused a decision, because it knows this leadership.
  superseded: leadership.leadership,

  // Instance to API server.
  outputs: generate.outputBatch,

  // API server to instance, or source instance to destination instance.
  abort: generate.abortNotice,
  migrate_cancel: migration.migrationName,

  // Successor to predecessor.
  finish: upgrade.finishNotice,
};

/** Notifications that come so often that they are packed: how their data is sent between processes. */
export const packers = { info: packInstanceInfo };

export type CallName = keyof typeof calls;
export type NotificationName = keyof typeof notifications;

/** What a call carries. */
export type RequestOf<M extends CallName> = ReturnType<(typeof calls)[M]["request"]>;
/** What its answer carries. */
export type ReplyOf<M extends CallName> = ReturnType<(typeof calls)[M]["reply"]>;
/** What a notification carries. */
export type NoticeOf<M extends NotificationName> = ReturnType<(typeof notifications)[M]>;

/** What only an operator may ask of the manager. */
export type AdminCallName = Extract<CallName, `admin_${string}`>;
/** How requests move from instance to instance. */
export type MigrationCallName = Extract<CallName, `migrate_${string}`>;

/** Makes an operator's call. Rejects with the manager's error. */
export type AdminCall = <M extends AdminCallName>(
  method: M,
  ask: RequestOf<M>,
) => Promise<ReplyOf<M>>;

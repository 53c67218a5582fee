/**
 * Llumnix as one executable: many LLM instances that serve as one.
 *
 * Run directly, this module is the program (`llumnix --help`). Imported, it is the library below.
 * @module
 */
import { start } from "./src/cli/start.ts";

export * from "./src/core/errors.ts";
export type { InstanceId, Priority, RequestId } from "./src/core/protocol/generate.ts";
export type {
  InstanceInfo,
  InstanceType,
  QueuedRequest,
} from "./src/core/protocol/instance_info.ts";
export type {
  DestinationRoom,
  MigrationAim,
  RequestMigrationPolicy,
} from "./src/core/protocol/migration.ts";
export type * from "./src/core/options.ts";

// Decisions on JSON records, as `llumnix decide` takes them, and the functions behind them.
export { type Answers, decide, type JsonNumber, type PairAnswer } from "./src/cli/decide/decide.ts";
export type { DecisionKind } from "./src/cli/decide/records.ts";
export type {
  RequestQueues,
  RunningRequest,
  WaitingRequest,
} from "./src/instance/llumlet/request_choice/policy.ts";
export {
  chooseRequests,
  type ChosenRequests,
} from "./src/instance/llumlet/request_choice/request_choice.ts";
export { createDispatchPolicy } from "./src/manager/dispatch/dispatch.ts";
export type { DispatchCandidate, DispatchPolicy } from "./src/manager/dispatch/policy.ts";
export { dispatchableOf } from "./src/manager/dispatch/dispatchable.ts";
export {
  aheadBlocks,
  dispatchLoad,
  dispatchLoadWith,
  migrationLoad,
} from "./src/manager/load/load_metric.ts";
export type { ComingRequest } from "./src/manager/load/policy.ts";
export { type LoadInfo, type LoadState, loadStateOf } from "./src/manager/load/load_state.ts";
export { freeness, requestUsageBlocks } from "./src/manager/load/metrics/virtual_usage.ts";
export {
  type PairMigrationOptions,
  pairMigrations,
} from "./src/manager/migration/pair_migration.ts";
export type { MigrationCandidate, MigrationPair } from "./src/manager/migration/policy.ts";
export { scalingChange, type ScalingPolicyOptions } from "./src/manager/scaling/scaling.ts";

if (import.meta.main) await start();

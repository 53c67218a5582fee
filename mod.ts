/**
 * Llumnix as one executable: many LLM instances that serve as one.
 *
 * Run directly, this module is the program (`llumnix --help`). Imported, it is the library below.
 * @module
 */
import { start } from "./src/cli/start.ts";

export * from "./src/core/errors.ts";
export type * from "./src/core/messages.ts";
export type * from "./src/core/options.ts";

// Decisions on JSON records, as `llumnix decide` takes them, and the functions behind them.
export { type Answers, decide, type JsonNumber, type PairAnswer } from "./src/cli/decide/decide.ts";
export type { DecisionKind } from "./src/cli/decide/records.ts";
export {
  chooseRequests,
  type ChosenRequests,
  type RequestQueues,
  type RunningRequest,
  type WaitingRequest,
} from "./src/instance/llumlet/request_choice/request_choice.ts";
export {
  createDispatchPolicy,
  type DispatchCandidate,
  type DispatchPolicy,
} from "./src/manager/dispatch/dispatch.ts";
export { dispatchableOf } from "./src/manager/dispatch/dispatchable.ts";
export {
  aheadBlocks,
  type ComingRequest,
  dispatchLoad,
  dispatchLoadWith,
  migrationLoad,
} from "./src/manager/load/load_metric.ts";
export { type LoadInfo, type LoadState, loadStateOf } from "./src/manager/load/load_state.ts";
export { freeness, requestUsageBlocks } from "./src/manager/load/metrics/virtual_usage.ts";
export {
  type MigrationCandidate,
  type MigrationPair,
  type PairMigrationOptions,
  pairMigrations,
} from "./src/manager/migration/pair_migration.ts";
export { scalingChange, type ScalingOptions } from "./src/manager/scaling/scaling.ts";

if (import.meta.main) await start();

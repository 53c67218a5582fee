/** The decisions of manager and instance on JSON records, for comparison from outside. */
import { UsageError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import { Random } from "../../core/random.ts";
import { chooseRequests } from "../../instance/llumlet/request_choice/request_choice.ts";
import { createDispatchPolicy } from "../../manager/dispatch/dispatch.ts";
import { dispatchableOf } from "../../manager/dispatch/dispatchable.ts";
import { RoundRobin } from "../../manager/dispatch/policies/round_robin.ts";
import {
  aheadBlocks,
  dispatchLoad,
  dispatchLoadWith,
  migrationLoad,
} from "../../manager/load/load_metric.ts";
import type { ComingRequest } from "../../manager/load/policy.ts";
import {
  comingHeadroomBlocks,
  type LoadInfo,
  type LoadState,
  loadStateOf,
} from "../../manager/load/load_state.ts";
import { freeness, virtualUsageBlocks } from "../../manager/load/metrics/virtual_usage.ts";
import { pairMigrations } from "../../manager/migration/pair_migration.ts";
import type { MigrationPair, WaitingCandidate } from "../../manager/migration/policy.ts";
import { roomBlocks } from "../../manager/migration/policies/room.ts";
import { scalingChange } from "../../manager/scaling/scaling.ts";
import type { Value } from "../arguments/argument.ts";
import { readRecord, type RecordOf } from "./fields.ts";
import { type DecideOptions, optionFields, optionsFor } from "./options.ts";
import { type DecisionKind, type InstanceRecord, kindFields } from "./records.ts";

/** A number in JSON, which has no infinity. */
export type JsonNumber = number | "inf" | "-inf";

/** A pair. With policy waiting_first it has an aim and the fields by which FIT chooses, as in `request`. */
export interface PairAnswer extends Omit<MigrationPair, "requestId"> {
  readonly request_id?: string;
  /** Blocks that the destination can take, as in the manager's order. */
  readonly room_blocks?: number;
}

/** Answers by kind of decision. */
export interface Answers {
  readonly load: {
    readonly loads: readonly {
      readonly instance_id: string;
      /** For dispatch, and for scaling but with virtual_usage. */
      readonly dispatch: JsonNumber;
      readonly migration: JsonNumber;
      /** With `--enable-defrag`. */
      readonly migration_defrag: JsonNumber;
      readonly virtual_usage_blocks: JsonNumber;
      readonly freeness: JsonNumber;
    }[];
  };
  /** Null: the request waits for an instance. */
  readonly dispatch: { readonly instance_id: string | null };
  readonly pair: { readonly pairs: readonly PairAnswer[] };
  readonly request: { readonly request_ids: readonly string[]; readonly must_leave: boolean };
  readonly scale: { readonly add: number; readonly remove: number };
}

type Input<K extends DecisionKind> = RecordOf<(typeof kindFields)[K]>;
type Decide<K extends DecisionKind> = (input: Input<K>, options: DecideOptions) => Answers[K];

/** One line per kind. */
const decisions: { readonly [K in DecisionKind]: Decide<K> } = {
  load: decideLoad,
  dispatch: decideDispatch,
  pair: decidePair,
  request: decideRequest,
  scale: decideScale,
};

/**
 * Decides one record. Fields and examples: `llumnix decide --help`.
 * @param record plain JSON data
 * @param given options for records without their own, by their names on the command line
 * @throws {UsageError} unknown or missing fields, values out of range
 */
export function decide<K extends DecisionKind>(
  kind: K,
  record: unknown,
  given: ReadonlyMap<string, Value> = new Map(),
): Answers[K] {
  const fields = { ...kindFields[kind], ...optionFields(kind) };
  const input = readRecord(record, fields);
  return decisions[kind](input as Input<K>, optionsFor(kind, input, given));
}

function decideLoad({ instances }: Input<"load">, options: DecideOptions): Answers["load"] {
  const { loadMetric } = options;
  const loads = statesOf(instances, options).map(([{ instance_id }, state]) => ({
    instance_id,
    dispatch: jsonNumber(dispatchLoad(loadMetric, state)),
    migration: jsonNumber(migrationLoad(loadMetric, state, false)),
    migration_defrag: jsonNumber(migrationLoad(loadMetric, state, true)),
    virtual_usage_blocks: jsonNumber(virtualUsageBlocks(state)),
    freeness: jsonNumber(freeness(state)),
  }));
  return { loads };
}

function decideDispatch(
  { instances, last_instance_id, request_blocks, request_priority }: Input<"dispatch">,
  options: DecideOptions,
): Answers["dispatch"] {
  const { loadMetric } = options;
  const comingTo = (instance: InstanceRecord): ComingRequest | null =>
    request_blocks === null ? null : {
      priority: request_priority,
      blocks: request_blocks,
      headroomBlocks: request_priority === "high"
        ? comingHeadroomBlocks(infoOf(instance), options)
        : 0,
    };
  const all = statesOf(instances, options).map(([instance, state]) => {
    const coming = comingTo(instance);
    return {
      instanceId: instance.instance_id,
      instanceType: instance.instance_type,
      isDraining: instance.draining,
      load: coming === null
        ? dispatchLoad(loadMetric, state)
        : dispatchLoadWith(loadMetric, state, coming),
      aheadBlocks: coming === null ? 0 : aheadBlocks(loadMetric, state, coming),
      waitingRequests: instance.waiting_requests + instance.pending_requests,
      dispatchedRequests: instance.dispatched_requests,
    };
  });
  const candidates = dispatchableOf(all, options.numDispatchInstances)
    .sort((a, b) => a.instanceId < b.instanceId ? -1 : 1);
  if (candidates.length === 0) return { instance_id: null };
  const policy = options.dispatchPolicy === "rr"
    ? new RoundRobin(last_instance_id)
    : createDispatchPolicy(options.dispatchPolicy, new Random(options.seed));
  return { instance_id: policy.choose(candidates) };
}

function decidePair({ instances }: Input<"pair">, options: DecideOptions): Answers["pair"] {
  const candidates = statesOf(instances, options).map(([instance, state]) => ({
    instanceId: instance.instance_id,
    instanceType: instance.instance_type,
    state,
    killedRequests: instance.killed_requests,
    lastRunningBlocks: instance.last_running_blocks,
    firstWaitingMs: instance.first_waiting_ms,
    waiting: waitingOf(instance),
    runningSequenceLengths: instance.running_sequence_lengths,
    blockSize: instance.block_size,
    hostName: instance.host,
    isHostDrained: instance.host_drained,
    isMigrating: instance.migrating,
    isBackendReady: instance.backend_ready,
  }));
  const states = new Map(candidates.map(({ instanceId, state }) => [instanceId, state]));
  const { loadMetric, migrateOutThreshold } = options;
  const roomOf = (id: InstanceId) => roomBlocks(states.get(id)!, loadMetric, migrateOutThreshold);
  const pairs = pairMigrations(candidates, options).map(({ requestId, ...pair }): PairAnswer => ({
    ...pair,
    ...requestId !== undefined && { request_id: requestId },
    ...pair.aim !== undefined && { room_blocks: roomOf(pair.destination) },
  }));
  return { pairs };
}

function waitingOf(instance: InstanceRecord): WaitingCandidate[] {
  const { waiting, first_waiting_blocks, first_waiting_ms } = instance;
  if (waiting.length === 0 && first_waiting_blocks > 0) {
    return [{ blocks: first_waiting_blocks, arrivalMs: -first_waiting_ms }];
  }
  return waiting.map(({ request_id, blocks, arrival_ms }) => ({
    requestId: request_id,
    blocks,
    arrivalMs: arrival_ms,
  }));
}

function decideRequest(
  input: Input<"request">,
  options: DecideOptions,
): Answers["request"] {
  const { running, waiting, room_blocks, room_first_arrival_ms, aim, request_id } = input;
  if (room_blocks === null) refuseTermsOfRoom(input);
  const seen = new Set<string>();
  refuseTwins(running, "request_id", "running", seen);
  refuseTwins(waiting, "request_id", "waiting", seen);
  const queues = {
    availableBlocks: input.available_blocks,
    running: running.map((request) => ({
      requestId: request.request_id,
      priority: request.priority,
      arrivalMs: request.arrival_ms,
      lengthTokens: request.length_tokens,
      blocks: request.blocks,
      isDecoding: request.decoding,
      hasReachedExpectedSteps: request.expected_steps_reached,
      isMigrating: request.migrating,
    })),
    waiting: waiting.map((request) => ({
      requestId: request.request_id,
      wasTried: request.tried,
      arrivalMs: request.arrival_ms,
      blocks: request.blocks,
      isMigrating: request.migrating,
    })),
  };
  const room = room_blocks === null
    ? undefined
    : { blocks: room_blocks, firstArrivalMs: room_first_arrival_ms };
  const terms = {
    room,
    aim: aim === "any" ? undefined : aim,
    requestId: request_id ?? undefined,
  };
  const { requestIds, mustLeave } = chooseRequests(queues, options.requestMigrationPolicy, terms);
  return { request_ids: requestIds, must_leave: mustLeave };
}

/** Fields that FIT reads only together with a room. */
function refuseTermsOfRoom({ aim, request_id, room_first_arrival_ms }: Input<"request">): void {
  const terms = { aim: aim === "any" ? null : aim, request_id, room_first_arrival_ms };
  for (const [name, value] of Object.entries(terms)) {
    if (value === null) continue;
    throw new UsageError(`${name} needs room_blocks, which pair answers with the aim`);
  }
}

function decideScale({ instances }: Input<"scale">, options: DecideOptions): Answers["scale"] {
  const serving = statesOf(instances, options).map(([, state]) => state)
    .filter(({ isDraining }) => !isDraining);
  const change = scalingChange(serving, options);
  return { add: Math.max(0, change), remove: Math.max(0, -change) };
}

function statesOf(
  instances: readonly InstanceRecord[],
  { priorityHeadroomBlocks }: DecideOptions,
): [InstanceRecord, LoadState][] {
  refuseTwins(instances, "instance_id", "instances");
  instances.forEach(({ waiting }, i) => {
    const where = `instances[${i}].waiting`;
    refuseTwins(waiting, "request_id", where);
    refuseDisorder(waiting, where);
  });
  return instances.map((instance) => [instance, stateOf(instance, priorityHeadroomBlocks)]);
}

/** @param seen ids that are taken; the function adds the ids of `records` */
function refuseTwins<Id extends string>(
  records: readonly Readonly<Record<Id, string>>[],
  field: Id,
  where: string,
  seen = new Set<string>(),
): void {
  records.forEach(({ [field]: id }, i) => {
    if (seen.has(id)) throw new UsageError(`${where}[${i}].${field}: ${id} is there twice`);
    seen.add(id);
  });
}

/** The order of turns, in which arrivals go back once at most: where high priority ends. */
function refuseDisorder(waiting: InstanceRecord["waiting"], where: string): void {
  let numBack = 0;
  waiting.forEach(({ arrival_ms }, i) => {
    if (i > 0 && arrival_ms < waiting[i - 1].arrival_ms) numBack++;
    if (numBack < 2) return;
    throw new UsageError(
      `${where}[${i}].arrival_ms: ${arrival_ms} is out of order: requests of high priority come ` +
        "first, then the others, both by arrival",
    );
  });
}

function stateOf(instance: InstanceRecord, priorityHeadroomBlocks: number | null): LoadState {
  return loadStateOf(infoOf(instance), {
    priorityHeadroomBlocks,
    isDraining: instance.draining,
    pendingRequests: instance.pending_requests,
    pendingBlocks: instance.pending_blocks,
  });
}

/** @throws {UsageError} numbers that contradict each other */
function infoOf(instance: InstanceRecord): LoadInfo {
  const total = instance.total_blocks;
  const used = instance.used_blocks ?? total - (instance.free_blocks ?? total);
  const free = instance.free_blocks ?? total - used;
  if (used < 0 || free < 0 || used + free > total) {
    throw new UsageError(
      `${instance.instance_id}: ${used} used and ${free} free blocks are not what total_blocks ` +
        `${total} can be: expected both 0 or more, and together ${total} at most`,
    );
  }
  if (instance.running_high_priority_requests > instance.running_requests) {
    throw new UsageError(
      `${instance.instance_id}: running_high_priority_requests are more than running_requests`,
    );
  }
  refuseMore(instance, "running_sequence_lengths", "running_requests");
  refuseMore(instance, "waiting", "waiting_requests");
  return {
    totalBlocks: total,
    freeBlocks: free,
    usedBlocks: used,
    watermarkBlocks: instance.watermark_blocks,
    runningRequests: instance.running_requests,
    runningHighPriorityRequests: instance.running_high_priority_requests,
    waitingRequests: instance.waiting_requests,
    firstWaitingBlocks: instance.first_waiting_blocks,
    allWaitingBlocks: instance.all_waiting_blocks,
    prefillBlocks: instance.prefill_blocks,
  };
}

/** @throws {UsageError} a list that has more requests than there are */
function refuseMore(
  instance: InstanceRecord,
  list: "running_sequence_lengths" | "waiting",
  number: "running_requests" | "waiting_requests",
): void {
  const numListed = instance[list].length;
  if (numListed <= instance[number]) return;
  throw new UsageError(
    `${instance.instance_id}: ${list} lists ${numListed} requests, more than ${number} ` +
      `${instance[number]}`,
  );
}

function jsonNumber(value: number): JsonNumber {
  if (value === Infinity) return "inf";
  if (value === -Infinity) return "-inf";
  return value === 0 ? 0 : value; // not -0
}

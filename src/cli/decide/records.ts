/** The records of `llumnix decide`: fields of instances and of requests. */
import {
  amount,
  amountOrNull,
  amounts,
  count,
  type Fields,
  oneOf,
  type RecordOf,
  records,
  text,
  textOrNull,
  truth,
  unread,
} from "./fields.ts";

/** A request in the queue of an instance. */
export const queuedFields = {
  request_id: text("The answer refers to it."),
  blocks: amount("Blocks that it needs."),
  arrival_ms: amount("The oldest is helped first.", { default: 0 }),
};

/** An instance: its report, and what the manager knows in addition. */
export const instanceFields = {
  instance_id: text("Unique in the record."),
  instance_type: oneOf("Role under prefill-decode disaggregation.", {
    choices: ["both", "prefill", "decode"],
    default: "both",
  }),
  total_blocks: count("KV blocks of the pool.", { min: 1 }),
  free_blocks: amountOrNull("Left out: total_blocks - used_blocks."),
  used_blocks: amountOrNull("Left out: total_blocks - free_blocks, or 0 without either."),
  watermark_blocks: amount("Blocks that admissions leave free.", { default: 0 }),
  running_requests: count("Requests in the batch.", { default: 0 }),
  running_high_priority_requests: count("Running requests of high priority.", { default: 0 }),
  waiting_requests: count("Requests in the queue.", { default: 0 }),
  killed_requests: count("Preempted requests that do not run again yet.", { default: 0 }),
  first_waiting_blocks: amount("Blocks of the first waiting request.", { default: 0 }),
  all_waiting_blocks: amount("Blocks of all waiting requests.", { default: 0 }),
  prefill_blocks: amount(
    "Blocks of the prompts that are being computed. Only dispatch reads it: with virtual_usage, for " +
      "a high-priority request with request_blocks.",
    { default: 0 },
  ),
  first_waiting_ms: amount("Time since the first waiting request arrived.", { default: 0 }),
  waiting: records(
    "With waiting_first: the first of the queue, in its order (high priority first, then by " +
      "arrival). Left out: one request of first_waiting_blocks that arrived first_waiting_ms ago.",
    queuedFields,
    { default: [] },
  ),
  last_running_blocks: amount("Blocks of the last running request.", { default: 0 }),
  running_sequence_lengths: amounts(
    "Tokens of each running request. With waiting_first no request leaves without them: neither from " +
      "an instance short of blocks (aim shortest) nor to make room for a waiting request (aim room).",
  ),
  block_size: count("Tokens in a block.", { default: 16, min: 1 }),
  draining: truth("It gives its requests away and takes none: its load is inf.", {
    default: false,
  }),
  host: textOrNull(
    "Name of its host. Of destinations with about the same load, the source's host is first.",
  ),
  host_drained: truth("Its host is being drained: it takes no requests from others.", {
    default: false,
  }),
  migrating: truth("It takes part in a migration now.", { default: false }),
  backend_ready: truth("Its migration backend is initialised.", { default: true }),
  dispatched_requests: count("Requests dispatched to it so far.", { default: 0 }),
  pending_requests: count("Requests dispatched to it that are not in this report yet.", {
    default: 0,
  }),
  pending_blocks: amount("Blocks of the pending requests.", { default: 0 }),
  timestamp_ms: unread("Not read."),
  step_id: unread("Not read."),
  last_step_kind: unread("Not read."),
  last_step_batched_tokens: unread("Not read."),
  last_step_latency_ms: unread("Not read."),
  finished_request_ids: unread("Not read."),
  received_request_ids: unread("Not read."),
};

export type InstanceRecord = RecordOf<typeof instanceFields>;

export const runningFields = {
  request_id: text("The answer refers to it."),
  length_tokens: count("Tokens of prompt and output.", { min: 1 }),
  blocks: amount("Blocks that it has.", { default: 0 }),
  priority: oneOf("Normal requests leave first.", {
    choices: ["high", "normal"],
    default: "normal",
  }),
  arrival_ms: amount("If equal, the order of the list counts.", { default: 0 }),
  decoding: truth("Its prompt is computed.", { default: true }),
  expected_steps_reached: truth("It must continue on another instance.", { default: false }),
  migrating: truth("It is leaving already.", { default: false }),
};

export const waitingFields = {
  request_id: text("The answer refers to it."),
  tried: truth("The scheduler has tried to run it.", { default: true }),
  arrival_ms: amount("With FIT: compared with room_first_arrival_ms.", { default: 0 }),
  blocks: amount("Blocks that it needs.", { default: 0 }),
  migrating: truth("It is leaving already.", { default: false }),
};

const instances = { instances: records("In the order in which they joined.", instanceFields) };

export type DecisionKind = "load" | "dispatch" | "pair" | "request" | "scale";

/** The fields of a line of each kind, without its options. */
export const kindFields = {
  load: instances,
  dispatch: {
    ...instances,
    last_instance_id: textOrNull("With policy rr: the instance of the previous request."),
    request_blocks: amountOrNull(
      "With load metric virtual_usage: blocks of the request's prompt. Left out: loads do not " +
        "depend on the request.",
    ),
    request_priority: oneOf("Priority of the request. Read only with request_blocks.", {
      choices: ["high", "normal"],
      default: "normal",
    }),
  },
  pair: instances,
  request: {
    running: records("In the order of the queue.", runningFields, { default: [] }),
    waiting: records("In the order of the queue.", waitingFields, { default: [] }),
    available_blocks: amount("With FIT: free blocks without the watermark.", { default: 0 }),
    room_blocks: amountOrNull(
      "With FIT: blocks that the destination can take, as in an answer to pair with an aim: its " +
        "free_blocks - watermark_blocks - migrate_out_threshold for each running request (with " +
        "usage_ratio: - (1 - migrate_out_threshold) * total_blocks), rounded down, and at least 0. " +
        "Left out: FIT is FCWSR.",
    ),
    room_first_arrival_ms: amountOrNull(
      "With FIT: arrival of the head of the destination's queue; only an older waiting request " +
        "moves. Left out: no request waits there.",
    ),
    request_id: textOrNull(
      "With FIT and aim waiting: the request of the pair. Left out: the first that fits.",
    ),
    aim: oneOf("With FIT: the aim of the pair, as in the answer to pair.", {
      choices: ["any", "waiting", "room", "shortest"],
      default: "any",
    }),
  },
  scale: instances,
} satisfies Record<DecisionKind, Fields>;

export const decisionKinds = Object.keys(kindFields) as DecisionKind[];

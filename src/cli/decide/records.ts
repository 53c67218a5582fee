/** What `llumnix decide` reads: the fields of instances and of requests. */
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
  request_id: text("Named in the answer."),
  blocks: amount("Blocks that it needs."),
  arrival_ms: amount("The oldest is helped first.", { default: 0 }),
};

/** An instance: its report, and what the manager knows besides. */
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
  running_high_priority_requests: count("Those of the running ones.", { default: 0 }),
  waiting_requests: count("Requests in the queue.", { default: 0 }),
  killed_requests: count("Preempted, and not running again yet.", { default: 0 }),
  first_waiting_blocks: amount("Blocks of the first waiting request.", { default: 0 }),
  all_waiting_blocks: amount("Blocks of all waiting requests.", { default: 0 }),
  prefill_blocks: amount(
    "Blocks of the prompts that are being computed. Read by dispatch alone: with virtual_usage, for " +
      "a request of high priority with request_blocks.",
    { default: 0 },
  ),
  first_waiting_ms: amount("Time since the first waiting request arrived.", { default: 0 }),
  waiting: records(
    "With waiting_first: the first of the queue, in its order (high priority first, then by " +
      "arrival). Left out: one of first_waiting_blocks that came first_waiting_ms ago.",
    queuedFields,
    { default: [] },
  ),
  last_running_blocks: amount("Blocks of the last running request.", { default: 0 }),
  running_sequence_lengths: amounts(
    "Tokens of each running request. With waiting_first: without them none can leave, neither where " +
      "running ones are short of blocks (aim shortest) nor to make room for one that waits (room).",
  ),
  block_size: count("Tokens in a block.", { default: 16, min: 1 }),
  draining: truth("Is to lose its requests and take none: its load is inf.", { default: false }),
  migrating: truth("Takes part in a migration now.", { default: false }),
  backend_ready: truth("Its migration backend is initialised.", { default: true }),
  dispatched_requests: count("Requests dispatched to it so far.", { default: 0 }),
  pending_requests: count("Dispatched to it and not in this report yet.", { default: 0 }),
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
  request_id: text("Named in the answer."),
  length_tokens: count("Tokens of prompt and output.", { min: 1 }),
  blocks: amount("Blocks that it has.", { default: 0 }),
  priority: oneOf("Normal requests leave first.", {
    choices: ["high", "normal"],
    default: "normal",
  }),
  arrival_ms: amount("Equal ones came in the order of the list.", { default: 0 }),
  decoding: truth("Its prompt is computed.", { default: true }),
  expected_steps_reached: truth("It must go on elsewhere.", { default: false }),
  migrating: truth("It is leaving already.", { default: false }),
};

export const waitingFields = {
  request_id: text("Named in the answer."),
  tried: truth("The scheduler has tried to run it.", { default: true }),
  arrival_ms: amount("With FIT: compared with room_first_arrival_ms.", { default: 0 }),
  blocks: amount("Blocks that it needs.", { default: 0 }),
  migrating: truth("It is leaving already.", { default: false }),
};

const instances = { instances: records("In the order in which they came.", instanceFields) };

export type DecisionKind = "load" | "dispatch" | "pair" | "request" | "scale";

/** What a line of each kind holds besides its options. */
export const kindFields = {
  load: instances,
  dispatch: {
    ...instances,
    last_instance_id: textOrNull("With policy rr: where the request before went."),
    request_blocks: amountOrNull(
      "With load metric virtual_usage: blocks of the request's prompt; left out, loads do not " +
        "depend on the request.",
    ),
    request_priority: oneOf("Of the request. Read only with request_blocks.", {
      choices: ["high", "normal"],
      default: "normal",
    }),
  },
  pair: instances,
  request: {
    running: records("In the order of the queue.", runningFields, { default: [] }),
    waiting: records("In the order of the queue.", waitingFields, { default: [] }),
    available_blocks: amount("With FIT: free blocks but for the watermark.", { default: 0 }),
    room_blocks: amountOrNull(
      "With FIT: what the destination takes, as pair answers it with an aim. It is what " +
        "free_blocks have over watermark_blocks there, less migrate_out_threshold for each running " +
        "request (with usage_ratio: less 1 - migrate_out_threshold of total_blocks), rounded " +
        "down, and at least 0. Left out, FIT is FCWSR.",
    ),
    room_first_arrival_ms: amountOrNull(
      "With FIT: of the head of the queue there; what waits goes only if it is older. Left out: " +
        "nothing waits there.",
    ),
    request_id: textOrNull("With FIT and aim waiting: of the pair; left out, the first that fits."),
    aim: oneOf("With FIT: of the pair, as pair answers it.", {
      choices: ["any", "waiting", "room", "shortest"],
      default: "any",
    }),
  },
  scale: instances,
} satisfies Record<DecisionKind, Fields>;

export const decisionKinds = Object.keys(kindFields) as DecisionKind[];

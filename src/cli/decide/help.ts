/** Help of `llumnix decide` on its records, with examples that work. */
import { wrap } from "../help.ts";
import type { Field, Fields } from "./fields.ts";
import { optionFields } from "./options.ts";
import {
  type DecisionKind,
  decisionKinds,
  instanceFields,
  kindFields,
  queuedFields,
  runningFields,
  waitingFields,
} from "./records.ts";

/** Lines of input and their answers. */
export const examples: Readonly<Record<DecisionKind, { input: string; answer: string }>> = {
  load: {
    input: '{"instances": [{"instance_id": "a", "total_blocks": 100, "used_blocks": 40, ' +
      '"running_requests": 4}, {"instance_id": "b", "total_blocks": 100}]}',
    answer: '{"loads":[{"instance_id":"a","dispatch":-15,"migration":-15,"migration_defrag":-15,' +
      '"virtual_usage_blocks":40,"freeness":15},{"instance_id":"b","dispatch":"-inf",' +
      '"migration":"-inf","migration_defrag":"-inf","virtual_usage_blocks":0,"freeness":"inf"}]}',
  },
  dispatch: {
    input: '{"dispatch_policy": "queue", "instances": [{"instance_id": "a", "total_blocks": 100, ' +
      '"waiting_requests": 2}, {"instance_id": "b", "total_blocks": 100, "waiting_requests": 1}]}',
    answer: '{"instance_id":"b"}',
  },
  pair: {
    input: '{"migrate_out_threshold": 3, "instances": [{"instance_id": "a", "total_blocks": 100, ' +
      '"used_blocks": 96, "running_requests": 4, "last_running_blocks": 20}, {"instance_id": "b", ' +
      '"total_blocks": 100}]}',
    answer: '{"pairs":[{"source":"a","destination":"b"}]}',
  },
  request: {
    input: '{"request_migration_policy": "SR", "running": [{"request_id": "r1", ' +
      '"length_tokens": 300}, {"request_id": "r2", "length_tokens": 50}], "waiting": []}',
    answer: '{"request_ids":["r2"],"must_leave":false}',
  },
  scale: {
    input: '{"max_instances": 4, "instances": [{"instance_id": "a", "total_blocks": 100, ' +
      '"used_blocks": 90, "running_requests": 10}]}',
    answer: '{"add":1,"remove":0}',
  },
};

/** Explanations of answers. */
const answerNotes: Partial<Record<DecisionKind, string>> = {
  load:
    "Loads grow with pressure. Dispatch and scaling use dispatch, which counts waiting and pending " +
    "requests (with virtual_usage only the first waiting request, and scaling has a load of its " +
    "own). Pairing uses migration, or with --enable-defrag migration_defrag. Both ignore pending " +
    "requests and count only the first waiting request; with remaining_steps only migration_defrag " +
    "counts it. virtual_usage_blocks and freeness do not depend on the load metric.",
};

/** The part of help after the arguments: every record with an example. */
export function recordsHelp(width: number): string {
  const introduction = [
    "Each line of input is a JSON object. Each answer is one line, in the same order. Infinities " +
    'are "inf" and "-inf". Unknown fields are refused. A line may have the options of its kind as ' +
    "fields, which win over the command line. Draining instances have load inf; the answer to scale " +
    "leaves them out.",
    "Among equal choices, dispatch takes the instance with the fewest dispatched_requests, then the " +
    "lowest id; pair and request take the first in the list.",
  ];
  return [
    ...introduction.map((text) => wrap(text, width, "")),
    ...decisionKinds.map((kind) => kindHelp(kind, width)),
    recordHelp("Fields of an instance", instanceFields, width),
    recordHelp("Fields of a request in the queue of an instance", queuedFields, width),
    recordHelp("Fields of a running request", runningFields, width),
    recordHelp("Fields of a waiting request", waitingFields, width),
  ].join("\n\n");
}

function kindHelp(kind: DecisionKind, width: number): string {
  const { input, answer } = examples[kind];
  const fields = { ...kindFields[kind], ...optionFields(kind) };
  const note = answerNotes[kind];
  return `${recordHelp(`Records of --kind ${kind}`, fields, width)}\n` +
    `  example:\n    ${input}\n  answer:\n    ${answer}` +
    (note === undefined ? "" : `\n${wrap(note, width, "  ")}`);
}

function recordHelp(title: string, fields: Fields, width: number): string {
  const lines = Object.entries(fields).map(([name, field]) => {
    const body = wrap(fieldHelp(field), width, " ".repeat(36));
    return `  ${name}`.padEnd(36) + body.slice(36);
  });
  return [`${title}:`, ...lines].join("\n");
}

function fieldHelp({ form, help, default: defaultValue }: Field): string {
  const isPlain = ["number", "string", "boolean"].includes(typeof defaultValue);
  const suffix = defaultValue === undefined
    ? "Required."
    : isPlain
    ? `Default ${defaultValue}.`
    : "";
  const isOption = help.startsWith("As --");
  return [isOption ? "" : `${form}.`, help, suffix].filter(Boolean).join(" ");
}

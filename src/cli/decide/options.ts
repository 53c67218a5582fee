/** Policies and thresholds of `llumnix decide`, from the command line or from a line of input. */
import { UsageError } from "../../core/errors.ts";
import type { LoadMetricName } from "../../core/options.ts";
import {
  defaultThresholds,
  scalingThresholdProblem,
  thresholdProblem,
} from "../../manager/load/thresholds.ts";
import {
  type Argument,
  type ArgumentTable,
  camelCase,
  choice,
  integer,
  type OptionsOf,
  text,
  type Value,
} from "../arguments/argument.ts";
import { llumnixArguments } from "../arguments/llumnix.ts";
import { serverExtras } from "../arguments/program.ts";
import type { Group } from "../arguments/tables.ts";
import { parseValue, shownDefault } from "../arguments/values.ts";
import { decisionKinds } from "./records.ts";
import type { DecisionKind } from "./records.ts";
import type { Field } from "./fields.ts";

/** An argument of `serve`. It works here even if it does not work there yet. */
function asOption<A extends Argument>(argument: A): A {
  return { ...argument, status: { kind: "works" }, section: null };
}

/** Options that a line of input may also have, in snake case. */
const optionTable = {
  "load-metric": asOption(llumnixArguments["load-metric"]),
  "priority-headroom-blocks": asOption(serverExtras["priority-headroom-blocks"]),
  "dispatch-policy": asOption(llumnixArguments["dispatch-policy"]),
  "num-dispatch-instances": asOption(llumnixArguments["num-dispatch-instances"]),
  "seed": integer({ default: 0, min: 0, help: "Seed of the random choices of a policy (queue)." }),
  "pair-migration-policy": asOption(llumnixArguments["pair-migration-policy"]),
  "enable-defrag": asOption(llumnixArguments["enable-defrag"]),
  "migrate-out-threshold": asOption(llumnixArguments["migrate-out-threshold"]),
  "enable-pd-disagg": asOption(llumnixArguments["enable-pd-disagg"]),
  "request-migration-policy": asOption(llumnixArguments["request-migration-policy"]),
  "scaling-policy": asOption(llumnixArguments["scaling-policy"]),
  "scale-up-threshold": asOption(llumnixArguments["scale-up-threshold"]),
  "scale-down-threshold": asOption(llumnixArguments["scale-down-threshold"]),
  "min-instances": asOption(llumnixArguments["min-instances"]),
  "max-instances": integer({ default: 1024, min: 1, help: "Maximum number of instances." }),
} satisfies ArgumentTable;

type OptionName = keyof typeof optionTable;

export type DecideOptions = OptionsOf<typeof optionTable>;

/** Options that a kind of decision reads. */
const kindOptions: Readonly<Record<DecisionKind, readonly OptionName[]>> = {
  load: ["load-metric", "priority-headroom-blocks"],
  dispatch: [
    "dispatch-policy",
    "load-metric",
    "num-dispatch-instances",
    "priority-headroom-blocks",
    "seed",
  ],
  pair: [
    "pair-migration-policy",
    "enable-defrag",
    "migrate-out-threshold",
    "load-metric",
    "priority-headroom-blocks",
    "enable-pd-disagg",
  ],
  request: ["request-migration-policy"],
  scale: [
    "scaling-policy",
    "scale-up-threshold",
    "scale-down-threshold",
    "min-instances",
    "max-instances",
    "load-metric",
    "priority-headroom-blocks",
  ],
};

export const decideArguments = {
  "kind": choice({
    choices: decisionKinds,
    default: null,
    help: "What to decide: loads of instances, the instance of a request, pairs that migrate, " +
      "requests that leave, how many instances to add or remove.",
  }),
  "input": text({
    default: "-",
    metavar: "FILE",
    help: "File of records, one JSON object per line. -: standard input.",
  }),
} satisfies ArgumentTable;

export const decideGroups: readonly Group[] = [
  { title: "Arguments", section: "MANAGER", table: decideArguments },
  {
    title: "Options, for lines that do not have their own",
    section: "MANAGER",
    table: optionTable,
  },
];

function fieldName(option: string): string {
  return option.replaceAll("-", "_");
}

/** The options of a kind as fields of its records; undefined values: not in the record. */
export function optionFields(kind: DecisionKind): Record<string, Field<Value | undefined>> {
  const entries = kindOptions[kind].map((name) => {
    const argument: Argument = optionTable[name];
    const option: Field<Value | undefined> = {
      form: argument.choices?.join(", ") ?? argument.kind,
      help: `As --${name}${defaultNote(argument)}.`,
      default: null,
      read: (raw, where) => parseValue(argument, raw, (shown) => `${where} ${shown}`),
    };
    return [fieldName(name), option];
  });
  return Object.fromEntries(entries);
}

function defaultNote(argument: Argument): string {
  const shown = shownDefault(argument);
  return shown === null ? "" : ` (default ${shown})`;
}

/**
 * The options of one line of input: its own, else the command line's, else the defaults. Default
 * thresholds depend on the metric.
 * @param given options of the command line, by name
 * @throws {UsageError} a threshold that the metric cannot have, limits or thresholds that contradict
 *   each other
 */
export function optionsFor(
  kind: DecisionKind,
  record: Readonly<Record<string, unknown>>,
  given: ReadonlyMap<string, Value>,
): DecideOptions {
  const valueOf = (name: string) => record[fieldName(name)] as Value ?? given.get(name) ?? null;
  const metric = (valueOf("load-metric") ?? "remaining_steps") as LoadMetricName;
  const thresholds: Readonly<Record<string, number>> = { ...defaultThresholds(metric) };
  const options: Record<string, Value> = {};
  for (const [name, argument] of Object.entries(optionTable)) {
    const property = camelCase(name);
    options[property] = valueOf(name) ?? thresholds[property] ?? argument.default;
    if (!(property in thresholds) || !kindOptions[kind].includes(name as OptionName)) continue;
    const threshold = options[property] as number;
    const problem = thresholdProblem(metric, threshold);
    if (problem !== null) throw new UsageError(`${fieldName(name)} ${threshold}: ${problem}`);
  }
  if (kind === "scale") checkScaling(options as DecideOptions);
  return options as DecideOptions;
}

/** @throws {UsageError} limits or thresholds that contradict each other */
function checkScaling(options: DecideOptions): void {
  const { minInstances, maxInstances, loadMetric } = options;
  if (minInstances > maxInstances) {
    throw new UsageError(
      `min_instances ${minInstances} is more than max_instances ${maxInstances}`,
    );
  }
  const problem = scalingThresholdProblem(loadMetric, options);
  if (problem !== null) throw new UsageError(problem);
}

/** What a GPU has to reach: shares of a ceiling that the same run measures, and times. */

export interface Goal {
  readonly id: string;
  /** For people. */
  readonly what: string;
  /** A share must be at least the bar; a value in another unit at most. */
  readonly unit: "share" | "us" | "s" | "steps";
  readonly bar: number;
  /** A share that is hoped for. */
  readonly aim?: number;
}

export const goals = [
  {
    ...{ id: "decode-8b", unit: "share", bar: 0.85, aim: 0.9 },
    what: "layers of an 8B shape, batch 1, context 1k: bytes read, of a copy on the device",
  },
  {
    ...{ id: "step-8b", unit: "share", bar: 0.85, aim: 0.9 },
    what: "whole decode steps of an 8B shape, batch 1: bytes read, of a copy on the device",
  },
  { id: "decode-1b", unit: "share", bar: 0.75, what: "the same for layers of a 1B shape" },
  { id: "decode-0.6b", unit: "share", bar: 0.55, what: "the same for layers of a 0.6B shape" },
  {
    ...{ id: "decode-8b-64", unit: "share", bar: 0.6 },
    what: "layers of an 8B shape, batch 64, context 1k: bytes read, of a copy on the device",
  },
  {
    ...{ id: "prefill", unit: "share", bar: 0.5 },
    what: "prompt of 2k tokens, 8B shape: products, of the rate of a large bfloat16 product",
  },
  {
    id: "host-gap",
    unit: "us",
    bar: 50,
    what: "time between decode steps in which the device waits",
  },
  {
    ...{ id: "cold-start", unit: "s", bar: 5 },
    what: "from the start of `serve` to the first token, beyond reading the weights",
  },
  {
    ...{ id: "downtime", unit: "steps", bar: 1 },
    what: "downtime of a request that moves between two instances of a device, in decode steps",
  },
  {
    ...{ id: "cuda-ipc", unit: "share", bar: 0.7 },
    what: "blocks between two processes by cuda_ipc, of a copy on the device",
  },
  { id: "self-test", unit: "s", bar: 3, what: "self-test of the kernels at the first start" },
] as const satisfies readonly Goal[];

export type GoalId = typeof goals[number]["id"];

/** What came of a goal. */
export interface GoalOutcome {
  readonly goal: Goal;
  /** Null: nothing was measured. */
  readonly measured: number | null;
  readonly outcome: "met" | "missed" | "not measured";
}

/** @param measured by goal */
export function goalOutcomes(measured: ReadonlyMap<string, number>): GoalOutcome[] {
  return goals.map((goal: Goal): GoalOutcome => {
    const value = measured.get(goal.id);
    if (value === undefined) return { goal, measured: null, outcome: "not measured" };
    const isMet = goal.unit === "share" ? value >= goal.bar : value <= goal.bar;
    return { goal, measured: value, outcome: isMet ? "met" : "missed" };
  });
}

/** A line of a report. */
export function goalText({ goal, measured, outcome }: GoalOutcome): string {
  const shown = (value: number) =>
    goal.unit === "share"
      ? `${Math.round(value * 100)}%`
      : `${Number(value.toPrecision(3))} ${goal.unit}`;
  const bar = `${goal.unit === "share" ? "at least" : "at most"} ${shown(goal.bar)}` +
    (goal.aim === undefined ? "" : ` (aim ${shown(goal.aim)})`);
  const found = measured === null ? outcome : `${shown(measured)}, ${outcome}`;
  return `${goal.id}: ${found}. ${goal.what}: ${bar}`;
}

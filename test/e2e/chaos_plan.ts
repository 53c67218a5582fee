/** What happens to a service, drawn from a seed. */
import { Random } from "../../src/core/random.ts";

export interface ChaosPlan {
  readonly seed: number;
  /** Manager, API server and instances are processes of their own, and the manager is killed too. */
  readonly isApart: boolean;
  /** The number of instances follows the load as well. */
  readonly isScaling: boolean;
  readonly numInstances: number;
  readonly backend: "rayrpc" | "gloo";
  /** Streams that are open at the same time. */
  readonly concurrency: number;
  /** By number of events. */
  readonly actions: readonly ChaosAction[];
}

/**
 * Something that happens when the streams have brought so many events. Instances are numbered in the
 * order of their names, modulo those that serve and are to go on.
 */
export type ChaosAction =
  & { readonly atEvent: number }
  & (
    /** `hang`: stopped for good; `terminate`: asked to end by a signal. */
    | {
      readonly type: "kill" | "hang" | "terminate" | "drain" | "remove";
      readonly instance: number;
    }
    /** Stopped, and continued before anybody takes it for lost. */
    | { readonly type: "freeze"; readonly instance: number; readonly forMs: number }
    | { readonly type: "add" }
    /** Clients that come, and leave after some events. */
    | { readonly type: "leave"; readonly clients: number; readonly patience: number }
    /** Killed, and started again after a while. */
    | { readonly type: "kill_manager"; readonly forMs: number }
  );

/** The streams bring more, so that all actions fall on open streams. */
const LAST_ACTION_EVENT = 6_000;
const NUM_ACTIONS = 8;
/** A request is resumed as often. */
const MAX_LOSSES = 3;
/** Enough for a load that takes more than two instances. */
const SCALING_CONCURRENCY = 20;

const types = [
  ...["kill", "kill", "hang", "freeze", "terminate", "drain", "remove", "add", "leave"],
] as const;

/** Of four seeds two have their roles apart, two scale, and one does both. */
export function chaosPlan(seed: number): ChaosPlan {
  const random = new Random(seed);
  const isApart = seed % 2 === 0, isScaling = seed % 4 >= 2;
  const actions: ChaosAction[] = [];
  if (isApart) actions.push(managerKill(random));
  let losses = 0;
  while (actions.length < NUM_ACTIONS) {
    const action = randomAction(random, isApart);
    if (action.type === "add" && isScaling) continue; // then it is the load that adds
    const isLoss = action.type === "kill" || action.type === "hang";
    if (!isLoss || ++losses <= MAX_LOSSES) actions.push(action);
  }
  return {
    seed,
    isApart,
    isScaling,
    numInstances: isScaling ? 2 : 2 + random.below(3),
    backend: random.below(2) === 0 ? "gloo" : "rayrpc",
    concurrency: isScaling ? SCALING_CONCURRENCY : [4, 8, 20][random.below(3)],
    actions: actions.sort((a, b) => a.atEvent - b.atEvent),
  };
}

function randomAction(random: Random, isApart: boolean): ChaosAction {
  const atEvent = random.below(LAST_ACTION_EVENT);
  const instance = random.below(100);
  const drawn = random.below(types.length + (isApart ? 1 : 0));
  if (drawn === types.length) return managerKill(random);
  const type = types[drawn];
  switch (type) {
    case "add":
      return { atEvent, type };
    case "leave":
      return { atEvent, type, clients: 1 + random.below(20), patience: random.below(60) };
    case "freeze":
      return { atEvent, type, instance, forMs: 20 + random.below(300) };
    default:
      return { atEvent, type, instance };
  }
}

function managerKill(random: Random): ChaosAction {
  const atEvent = random.below(LAST_ACTION_EVENT);
  return { atEvent, type: "kill_manager", forMs: random.below(1_500) };
}

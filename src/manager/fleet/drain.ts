/** Who wants an instance to drain (src/manager/README.md, "Drains and removals"). */
export type DrainCause =
  /** An operator named the instance: scaling leaves the drain alone. */
  | "operator"
  /** An instance of another executable takes its place. */
  | "upgrade"
  /** The load is low. If it rises before the instance is empty, scaling keeps the instance. */
  | "scaling"
  /** Its own process was asked to stop, by a signal. Only the end of the service overrules that. */
  | "itself"
  /** The service finishes its requests, and then ends. */
  | "shutdown";

/** A draining instance takes no requests, and its requests move to other instances. */
export interface Drain {
  readonly by: DrainCause;
  /** The instance stops once it is empty, and no other takes its place. */
  readonly isRemoval: boolean;
}

/** Of two causes the stronger one counts; of equally strong ones the first. */
const strength: Readonly<Record<DrainCause, number>> = {
  shutdown: 0,
  scaling: 0,
  operator: 1,
  upgrade: 1,
  itself: 2,
};

/** The drain of an instance that is asked to drain once more. */
export function joinedDrains(before: Drain | null, { by, isRemoval }: Drain): Drain {
  if (before === null) return { by, isRemoval };
  return {
    by: strength[by] > strength[before.by] ? by : before.by,
    isRemoval: before.isRemoval || isRemoval,
  };
}

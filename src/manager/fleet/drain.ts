/** Who wants an instance to drain. */
export type DrainCause =
  /** By name: scaling does not change it. */
  | "operator"
  /** The load is low; kept when the load rises before the instance is empty. */
  | "scaling"
  /** Its process was asked to stop, by a signal: nothing the manager does can keep it. */
  | "itself"
  /** The service finishes its requests before it ends. */
  | "shutdown";

/** A draining instance takes no requests, and gives away those that it has. */
export interface Drain {
  readonly by: DrainCause;
  /** The instance is one fewer for good: it stops once it is empty, and no other takes its place. */
  readonly isRemoval: boolean;
}

/** Of two causes the stronger one decides what becomes of the instance; of equal ones the first. */
const strength: Readonly<Record<DrainCause, number>> = {
  shutdown: 0,
  scaling: 0,
  operator: 1,
  itself: 2,
};

/** What a drain becomes that is asked for once more. */
export function joinedDrains(before: Drain | null, { by, isRemoval }: Drain): Drain {
  if (before === null) return { by, isRemoval };
  return {
    by: strength[by] > strength[before.by] ? by : before.by,
    isRemoval: before.isRemoval || isRemoval,
  };
}

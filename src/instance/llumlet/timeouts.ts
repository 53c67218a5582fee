/** Deadlines of the parts of a migration, in milliseconds. */
export interface MigrationTimeouts {
  /** For an answer of the other instance, also to a commit. */
  readonly answerMs: number;
  /** For a stage: the reservation, the end of the running step, and the transfer. */
  readonly stageMs: number;
  /** For all migrations of one order. Shorter than the manager waits for the report. */
  readonly orderMs: number;
  /** How long the source asks the destination who owns a request whose commit was not answered. */
  readonly settleMs: number;
  /** How long the destination keeps blocks for a source that does not call. Longer than a stage. */
  readonly leaseMs: number;
  /** How long the destination remembers how a migration ended. Longer than any source asks. */
  readonly memoryMs: number;
}

export const defaultTimeouts: MigrationTimeouts = {
  answerMs: 2_000,
  stageMs: 5_000,
  orderMs: 20_000,
  settleMs: 4_000,
  leaseMs: 10_000,
  memoryMs: 600_000,
};

/** Deadlines of a migration's steps, in milliseconds of the instance's clock. */
export interface MigrationTimeouts {
  /** An answer of the other instance, a commit's included. */
  readonly answerMs: number;
  /** A stage: its reservation, the end of the running step, and its transfer. */
  readonly stageMs: number;
  /** All stages of one order. Shorter than the manager waits for the report. */
  readonly orderMs: number;
  /** How long the destination is asked who owns a request whose commit was not answered. */
  readonly settleMs: number;
  /** How long the destination keeps blocks for a source that is silent. Longer than a stage. */
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

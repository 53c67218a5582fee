/** A socket that the transfer thread waits for. Times are of `performance.now()`. */
export interface Waiter {
  readonly fd: number;
  /** POLLIN, POLLOUT, or both. */
  readonly events: number;
  /** What it can read has arrived already: it must not wait. */
  readonly hasBuffered: boolean;
  /** When {@linkcode onDeadline} must be called; Infinity for never. */
  readonly deadlineMs: number;
  onReady(events: number): void;
  onDeadline(): void;
  close(reason: string): void;
}

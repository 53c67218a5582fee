/** A socket that the transfer thread waits for. Times are of `performance.now()`. */
export interface Waiter {
  readonly fd: number;
  /** POLLIN, POLLOUT, or both. */
  readonly events: number;
  /** When {@linkcode onDeadline} must be called; Infinity for never. */
  readonly deadlineMs: number;
  onReady(events: number): void;
  onDeadline(): void;
  close(reason: string): void;
}

/** Something that the transfer thread waits for, on a clock of `performance.now()`. */
export interface Waiter {
  readonly fd: number;
  /** POLLIN, POLLOUT, or both. */
  readonly events: number;
  /** When {@linkcode onDeadline} is to be called; Infinity for never. */
  readonly deadlineMs: number;
  onReady(events: number): void;
  onDeadline(): void;
  close(reason: string): void;
}

/** By how much the clock of another process's host is ahead of this one's. */
import type { ClockDifference, ProcessReport } from "../core/protocol/examination.ts";
import type { CallOptions, Peer } from "./bus.ts";

/** Questions; the fastest answer is the one that counts. */
const QUESTIONS = 5;
/** `Date.now()` counts whole milliseconds, at both ends. */
const RESOLUTION_MS = 1;

/** What a process says of itself, and its clock. */
export interface Examined {
  readonly process: ProcessReport;
  readonly clock: ClockDifference;
}

/** The clocks of this host. */
export interface HostClocks {
  /** Milliseconds since the epoch, as people have set them. */
  wallMs(): number;
  /** Milliseconds of a monotonic clock. */
  steadyMs(): number;
}

const realClocks: HostClocks = { wallMs: () => Date.now(), steadyMs: () => performance.now() };

/**
 * Asks a process several times, one question after the other. The answer was given at some time between
 * question and answer: the middle is taken, and half of the time between them is the uncertainty.
 * @param options limit of each question
 * @throws {LlumnixError} as the call
 */
export async function examineProcess(
  peer: Pick<Peer, "call">,
  options: CallOptions,
  clocks = realClocks,
): Promise<Examined> {
  let best: Examined | null = null;
  for (let i = 0; i < QUESTIONS; i++) {
    const sentMs = clocks.wallMs(), startMs = clocks.steadyMs();
    const { data: process } = await peer.call("examine", { data: null }, options);
    const roundTripMs = clocks.steadyMs() - startMs;
    if (best !== null && roundTripMs >= best.clock.roundTripMs) continue;
    const clock = {
      aheadMs: process.timeMs - (sentMs + roundTripMs / 2),
      uncertaintyMs: roundTripMs / 2 + RESOLUTION_MS,
      roundTripMs,
    };
    best = { process, clock };
  }
  return best!;
}

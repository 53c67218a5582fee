/** How far a load is: a bar on a terminal, a line every ten seconds elsewhere. */
import type { Progress } from "../../bench/run.ts";
import { takesEscapes } from "../../core/terminal.ts";

const LINE_INTERVAL_MS = 10_000;
const BAR_INTERVAL_MS = 200;

export interface ProgressDisplay {
  show(progress: Progress): void;
  finish(): void;
}

const silent: ProgressDisplay = { show: () => {}, finish: () => {} };

/** @param what is measured, before the numbers */
export async function progressDisplay(
  what: string,
  total: number,
  isDisabled: boolean,
): Promise<ProgressDisplay> {
  if (isDisabled) return silent;
  return takesEscapes() ? await progressBar(what, total) : progressLines(what, total);
}

async function progressBar(what: string, total: number): Promise<ProgressDisplay> {
  const { SingleBar } = await import("cli-progress");
  const bar = new SingleBar({
    format: `${what}{bar} {value}/{total} {figures}`,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    barsize: 24,
    hideCursor: true,
    clearOnComplete: true,
    stopOnComplete: false,
  });
  const startMs = performance.now();
  bar.start(total, 0, { figures: "" });
  let shownMs = -Infinity;
  return {
    show(progress) {
      const nowMs = performance.now();
      if (nowMs - shownMs < BAR_INTERVAL_MS) return;
      shownMs = nowMs;
      bar.update(progress.done, { figures: figuresOf(progress, nowMs - startMs) });
    },
    finish: () => bar.stop(),
  };
}

function progressLines(what: string, total: number): ProgressDisplay {
  const startMs = performance.now();
  let shownMs = startMs;
  return {
    show(progress) {
      const nowMs = performance.now();
      if (nowMs - shownMs < LINE_INTERVAL_MS) return;
      shownMs = nowMs;
      console.error(`${what}${progress.done}/${total} ${figuresOf(progress, nowMs - startMs)}`);
    },
    finish() {},
  };
}

function figuresOf({ sent, done, failed, outputTokens }: Progress, elapsedMs: number): string {
  const seconds = elapsedMs / 1000;
  return [
    `done, ${sent - done} running`,
    ...(failed === 0 ? [] : [`${failed} failed`]),
    `${(outputTokens / seconds).toFixed(0)} tok/s`,
    `${seconds.toFixed(0)} s`,
  ].join(", ");
}

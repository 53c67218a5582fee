/** How far a simulation is: a bar on a terminal, a line per run elsewhere. */
import type { ComparisonProgress } from "../../sim/experiment/comparison.ts";
import { takesEscapes } from "../../core/terminal.ts";

export interface ProgressDisplay {
  show(progress: ComparisonProgress): void;
  finish(): void;
}

export async function progressDisplay(
  isTerminal = takesEscapes(),
): Promise<ProgressDisplay> {
  return isTerminal ? await progressBar() : progressLines();
}

async function progressBar(): Promise<ProgressDisplay> {
  const { SingleBar } = await import("cli-progress");
  const bar = new SingleBar({
    format: "{bar} {percentage}% run {run}/{runs} {what}",
    barCompleteChar: "█",
    barIncompleteChar: "░",
    hideCursor: true,
    clearOnComplete: true,
    stopOnComplete: false,
  });
  let hasStarted = false;
  return {
    show(progress) {
      const payload = { run: progress.run, runs: progress.numRuns, what: describe(progress) };
      // Thousandths of a run, so that it moves within long ones.
      if (!hasStarted) bar.start(1000 * progress.numRuns, 0, payload);
      hasStarted = true;
      bar.update(Math.floor(1000 * (progress.run - 1 + fractionOf(progress))), payload);
    },
    finish: () => bar.stop(),
  };
}

function progressLines(): ProgressDisplay {
  let shown = 0;
  return {
    show(progress) {
      if (progress.run === shown) return;
      shown = progress.run;
      console.error(`run ${progress.run}/${progress.numRuns}: ${describe(progress)}`);
    },
    finish() {},
  };
}

function fractionOf({ endedRequests, numRequests }: ComparisonProgress): number {
  return numRequests === null ? 0 : Math.min(1, endedRequests / numRequests);
}

function describe({ workload, cluster, seed }: ComparisonProgress): string {
  return `${workload}, ${cluster}, seed ${seed}`;
}

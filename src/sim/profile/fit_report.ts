/** What a fit is worth: a table for the terminal, and plots. */
import { formatNumber } from "../../core/stats/spread.ts";
import { decodeMs, prefillMs } from "../../executor/sim/profile.ts";
import type { Chart, Report, Series } from "../../report/report.ts";
import { textTable } from "../../report/text_table.ts";
import { type Fit, type FitQuality, squaresOf } from "./fit.ts";
import type { StepSample } from "./step_log.ts";

/** Most steps that a plot shows. */
const MAX_POINTS = 400;

const header = ["", "steps", "R2", "median error", "P95 error"];

export function fitText(fit: Fit): string {
  const { prefill, decode, pauseMs } = fit;
  return [
    textTable(header, qualityRows(fit)),
    "",
    `prefill: ${
      formula(
        [
          ...(prefill.msPerSquaredToken === undefined
            ? []
            : [[prefill.msPerSquaredToken, "tokens^2"] as const]),
          [prefill.msPerToken, "tokens"],
        ],
        prefill.msPerStep,
      )
    }`,
    `decode: ${
      formula(
        [[decode.msPerSequence, "sequences"], [decode.msPerToken, "tokens"]],
        decode.msPerStep,
      )
    }`,
    pauseMs === 0
      ? "Pauses between steps are not part of it."
      : `${formatNumber(pauseMs)} ms of each step is the pause between two steps.`,
  ].join("\n");
}

function qualityRows({ prefillQuality, decodeQuality }: Fit): string[][] {
  const row = (name: string, { steps, r2, medianError, p95Error }: FitQuality) => [
    name,
    String(steps),
    r2.toFixed(3),
    `${(100 * medianError).toFixed(1)}%`,
    `${(100 * p95Error).toFixed(1)}%`,
  ];
  return [row("prefill", prefillQuality), row("decode", decodeQuality)];
}

/** "0.12 ms * tokens + 3.4 ms" */
function formula(terms: readonly (readonly [number, string])[], constant: number): string {
  return [
    ...terms.map(([value, of]) => `${Number(value.toPrecision(4))} ms * ${of}`),
    `${Number(constant.toPrecision(4))} ms`,
  ].join(" + ");
}

/** @param notes lines below the title */
export function fitReport(
  title: string,
  notes: readonly string[],
  fit: Fit,
  steps: readonly StepSample[],
): Report {
  const { prefill, decode, alignment, pauseMs } = fit;
  const predict = (step: StepSample) =>
    (step.kind === "prefill"
      ? prefillMs({ prefill, alignment }, step.tokens, squaresOf(step))
      : decodeMs({ decode, alignment }, step.sequences, step.tokens)) -
    pauseMs;
  const charts = (["prefill", "decode"] as const).flatMap((kind) => {
    const chosen = thinned(steps.filter((step) => step.kind === kind));
    return [sizeChart(kind, chosen, predict), errorChart(kind, chosen, predict)];
  });
  return {
    title,
    notes,
    sections: [
      { title: "Fit", blocks: [{ type: "table", table: { header, rows: qualityRows(fit) } }] },
      { title: "Steps and the fit", blocks: [{ type: "charts", charts }] },
    ],
  };
}

type Predict = (step: StepSample) => number;

function sizeChart(kind: string, steps: readonly StepSample[], predict: Predict): Chart {
  const sorted = [...steps].sort((a, b) => a.tokens - b.tokens);
  const points = (of: Predict): Series["points"] => sorted.map((step) => [step.tokens, of(step)]);
  return {
    type: "lines",
    title: `${kind}: time of a step`,
    x: { label: kind === "prefill" ? "tokens" : "tokens of all sequences", scale: "log" },
    y: { label: "ms", scale: "log" },
    series: [
      { name: "measured", color: 0, points: points(({ latencyMs }) => latencyMs) },
      { name: "fit", color: 1, isDashed: true, points: points(predict) },
    ],
  };
}

/** The share of steps whose error is below a limit. */
function errorChart(kind: string, steps: readonly StepSample[], predict: Predict): Chart {
  const errors = steps
    .map((step) => 100 * Math.abs(predict(step) - step.latencyMs) / step.latencyMs)
    .sort((a, b) => a - b);
  return {
    type: "lines",
    title: `${kind}: share of steps with a smaller error`,
    x: { label: "error in percent", scale: "log" },
    y: { label: "percent of steps", scale: "linear", max: 100 },
    series: [{
      name: "steps",
      color: 0,
      points: errors.map((error, i) => [error, 100 * (i + 1) / errors.length]),
    }],
  };
}

function thinned(steps: readonly StepSample[]): StepSample[] {
  const stride = Math.max(1, Math.ceil(steps.length / MAX_POINTS));
  return steps.filter((_, i) => i % stride === 0);
}

/** From measured steps to the latency model of a profile. */
import { UsageError } from "../../core/errors.ts";
import { quantile } from "../../core/stats/distribution.ts";
import {
  type DecodeLatency,
  decodeMs,
  type ModelProfile,
  padded,
  type PrefillLatency,
  prefillMs,
  promptMs,
  type RequestLatency,
} from "../../executor/sim/profile.ts";
import { type Equation, medianOf, robustFit } from "./least_squares.ts";
import type { RequestSample } from "./request_samples.ts";
import type { StepSample } from "./step_log.ts";

/** Fewer steps of a kind are not fitted. */
const MIN_STEPS = 10;
const ALIGNMENTS = [8, 1] as const;

/** How well a fit agrees with its measurements. */
export interface FitQuality {
  readonly steps: number;
  /** Share of the variance that the fit explains, over all steps; below 0 it is worse than the mean. */
  readonly r2: number;
  /** Relative residuals without their signs: median and 95th percentile. */
  readonly medianError: number;
  readonly p95Error: number;
}

export interface Fit {
  /** Multiple to which the model pads counts: 8 as Llumnix's, or 1, whichever agrees better. */
  readonly alignment: number;
  readonly prefill: PrefillLatency;
  readonly decode: DecodeLatency;
  readonly prefillQuality: FitQuality;
  readonly decodeQuality: FitQuality;
  /** Between two decode steps, outside of the executor; 0 if it was not measured. */
  readonly pauseMs: number;
}

/**
 * Fits the steps of one model.
 * @param pausesMs between two steps; their median becomes a part of every step, because a simulated instance has
 *   no other cost between steps. Empty: none.
 * @param source where the steps come from, for the profile
 * @throws {UsageError} too few steps of a kind, or steps that are too much alike
 */
export function fitSteps(
  steps: readonly StepSample[],
  pausesMs: readonly number[],
  source: string,
): Fit {
  const pauseMs = pausesMs.length === 0 ? 0 : Math.max(0, medianOf(pausesMs));
  const [aligned, exact] = ALIGNMENTS.map((alignment) => fitAligned(steps, alignment, source));
  const best = errorOf(exact) < errorOf(aligned) ? exact : aligned;
  const { prefill, decode } = best;
  return {
    ...best,
    prefill: { ...prefill, msPerStep: prefill.msPerStep + pauseMs },
    decode: { ...decode, msPerStep: decode.msPerStep + pauseMs },
    pauseMs,
  };
}

/**
 * What requests took beyond their prefill.
 * @param requests that an idle instance got one at a time; one at least
 */
export function fitRequests(
  requests: readonly RequestSample[],
  profile: Pick<ModelProfile, "prefill" | "alignment" | "maxPieceTokens">,
  source: string,
): RequestLatency {
  const beyond = requests.map(({ promptTokens, ttftMs }) =>
    ttftMs - promptMs(profile, promptTokens)
  );
  return { msPerRequest: Math.max(0, medianOf(beyond)), source };
}

type AlignedFit = Omit<Fit, "pauseMs">;

function errorOf({ prefillQuality, decodeQuality }: AlignedFit): number {
  return prefillQuality.medianError + decodeQuality.medianError;
}

function fitAligned(
  steps: readonly StepSample[],
  alignment: number,
  source: string,
): AlignedFit {
  const prefills = steps.filter(({ kind }) => kind === "prefill");
  const decodes = steps.filter(({ kind }) => kind === "decode");
  const [msPerSquaredToken, msPerToken, msPerStep] = coefficients(
    "prefill",
    prefills,
    (step) => [squaresOf(step), padded(step.tokens, alignment), 1],
  );
  const [msPerSequence, msPerContextToken, msPerDecode] = coefficients(
    "decode",
    decodes,
    ({ sequences, tokens }) => [padded(sequences, alignment), padded(tokens, alignment), 1],
  );
  const prefill = {
    ...(msPerSquaredToken > 0 && { msPerSquaredToken }),
    ...{ msPerToken, msPerStep, source },
  };
  const decode = { msPerSequence, msPerToken: msPerContextToken, msPerStep: msPerDecode, source };
  return {
    ...{ alignment, prefill, decode },
    prefillQuality: qualityOf(
      prefills,
      (step) => prefillMs({ prefill, alignment }, step.tokens, squaresOf(step)),
    ),
    decodeQuality: qualityOf(
      decodes,
      ({ sequences, tokens }) => decodeMs({ decode, alignment }, sequences, tokens),
    ),
  };
}

/** Sum of the squared lengths of a step's prompts: as if they were equally long, which the log does not tell. */
export function squaresOf({ sequences, tokens }: StepSample): number {
  return tokens ** 2 / sequences;
}

/**
 * Inputs that never change cannot be told from the cost of a step, such as the number of sequences in a log of
 * few requests, whose padding is always 8. They cost nothing then.
 */
function coefficients(
  kind: string,
  steps: readonly StepSample[],
  inputsOf: (step: StepSample) => readonly number[],
): number[] {
  if (steps.length < MIN_STEPS) {
    throw new UsageError(
      `too few ${kind} steps to fit: ${steps.length}, expected ${MIN_STEPS} or more, of ` +
        "different sizes. Give profile run a larger --max-tokens and --max-batch; for profile fit, log a " +
        "longer run, with a lower --polling-interval.",
    );
  }
  const rows = steps.map(inputsOf);
  const varies = rows[0].map((_, i) =>
    i === rows[0].length - 1 || rows.some((row) => row[i] !== rows[0][i])
  );
  const equations: Equation[] = steps.map(({ latencyMs }, r) => ({
    inputs: rows[r].filter((_, i) => varies[i]),
    target: latencyMs,
  }));
  try {
    const found = robustFit(equations, varies.filter(Boolean).length);
    return varies.map((isUsed) => isUsed ? found.shift()! : 0);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(`the ${kind} steps cannot be fitted: ${error.message}`);
  }
}

function qualityOf(
  steps: readonly StepSample[],
  predict: (step: StepSample) => number,
): FitQuality {
  const mean = steps.reduce((sum, { latencyMs }) => sum + latencyMs, 0) / steps.length;
  let unexplained = 0, variance = 0;
  const errors = new Float64Array(steps.length);
  for (const [i, step] of steps.entries()) {
    const residual = step.latencyMs - predict(step);
    unexplained += residual ** 2;
    variance += (step.latencyMs - mean) ** 2;
    errors[i] = Math.abs(residual) / step.latencyMs;
  }
  errors.sort();
  return {
    steps: steps.length,
    r2: variance === 0 ? 1 : 1 - unexplained / variance,
    medianError: quantile(errors, 0.5),
    p95Error: quantile(errors, 0.95),
  };
}

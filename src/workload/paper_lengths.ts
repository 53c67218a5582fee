/** The length distributions of the Llumnix paper (OSDI'24, table 1). */
import { UsageError } from "../core/errors.ts";
import {
  fixedLength,
  type LengthDistribution,
  quantileLengths,
  type QuantileTable,
  zipfLengths,
} from "./lengths.ts";

/** Longest input and output of the paper's traces: together they fit the KV cache of an A10. */
const MAX_TOKENS = 6144;

/** Lengths of inputs and of outputs. */
export interface RequestLengths {
  readonly prompt: LengthDistribution;
  readonly output: LengthDistribution;
}

const generated = {
  s: zipfLengths({ name: "short", meanTokens: 128, exponent: 2, maxTokens: MAX_TOKENS }),
  m: zipfLengths({ name: "medium", meanTokens: 256, exponent: 1.5, maxTokens: MAX_TOKENS }),
  l: zipfLengths({ name: "long", meanTokens: 512, exponent: 1.15, maxTokens: MAX_TOKENS }),
};

/** P50, P80, P95 and P99 are the paper's; the ends are its cap and the limits of its clients. */
function published(
  name: string,
  meanTokens: number,
  [p50, p80, p95, p99]: readonly [number, number, number, number],
): LengthDistribution {
  const quantiles: QuantileTable["quantiles"] = [
    [0, 4],
    [0.5, p50],
    [0.8, p80],
    [0.95, p95],
    [0.99, p99],
    [1, MAX_TOKENS],
  ];
  return quantileLengths({ name, meanTokens, quantiles });
}

const named: Readonly<Record<string, RequestLengths>> = {
  "sharegpt": {
    prompt: published("sharegpt input", 306, [74, 348, 1484, 3388]),
    output: published("sharegpt output", 500, [487, 781, 988, 1234]),
  },
  "burstgpt": {
    prompt: published("burstgpt input", 830, [582, 1427, 2345, 3549]),
    output: published("burstgpt output", 271, [243, 434, 669, 964]),
  },
  "s-s": { prompt: generated.s, output: generated.s },
  "m-m": { prompt: generated.m, output: generated.m },
  "l-l": { prompt: generated.l, output: generated.l },
  "s-l": { prompt: generated.s, output: generated.l },
  "l-s": { prompt: generated.l, output: generated.s },
};

/** Names for {@linkcode requestLengths}, which also takes `fixed:PROMPT:OUTPUT`. */
export const lengthNames: readonly string[] = Object.keys(named);

/**
 * Lengths by name: `sharegpt`, `burstgpt`, the paper's generated traces by input and output (`s-s`,
 * `m-m`, `l-l`, `s-l`, `l-s`), or `fixed:PROMPT:OUTPUT` in tokens.
 * @throws {UsageError} the name is unknown
 */
export function requestLengths(name: string): RequestLengths {
  const key = name.toLowerCase();
  if (Object.hasOwn(named, key)) return named[key];
  const fixed = /^fixed:(\d+):(\d+)$/.exec(key);
  if (fixed) {
    return { prompt: fixedLength(Number(fixed[1])), output: fixedLength(Number(fixed[2])) };
  }
  throw new UsageError(
    `"${name}" is not known: expected ${lengthNames.join(", ")} or fixed:PROMPT:OUTPUT`,
  );
}

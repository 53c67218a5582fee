/** The load of the demo: bursts of short requests, with some long ones among them. */
import type { LoadRequest } from "../../bench/load_request.ts";
import { Random } from "../../core/random.ts";

/** One burst begins so often, and lasts for the first part of that time. */
const BURST_PERIOD_MS = 9_000;
const BURST_MS = 3_000;
/** Requests of a burst come faster by this factor than on average, the others slower. */
const BURST_FACTOR = 2.2;
const CALM_FACTOR = (BURST_PERIOD_MS - BURST_FACTOR * BURST_MS) / (BURST_PERIOD_MS - BURST_MS);
/** Share of the requests that are long: they fill half of an instance's KV cache. */
const LONG_SHARE = 0.12;
/** Characters of a text that is long enough to count its tokens. */
const SAMPLE_LENGTH = 2_000;

export interface LoadShape {
  readonly seconds: number;
  /** Output tokens per second that the requests ask for, on average. */
  readonly tokensPerSecond: number;
  /** Tokens that fit into the KV cache of an instance. */
  readonly cacheTokens: number;
  /** Of {@linkcode sampleText}, by the model's tokenizer. */
  readonly charactersPerToken: number;
  readonly random: Random;
}

interface Lengths {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** Requests in the order of their times. Prompts are sentences of about so many tokens. */
export function demoLoad(
  { seconds, tokensPerSecond, cacheTokens, charactersPerToken, random }: LoadShape,
): LoadRequest[] {
  const rate = tokensPerSecond / meanOutputTokens(cacheTokens);
  const requests: LoadRequest[] = [];
  for (let atMs = 0;;) {
    const isBurst = atMs % BURST_PERIOD_MS < BURST_MS;
    const perMs = rate * (isBurst ? BURST_FACTOR : CALM_FACTOR) / 1000;
    atMs += -Math.log(1 - random.uniform()) / perMs;
    if (atMs >= seconds * 1000) return requests;
    const lengths = lengthsOf(random.uniform() < LONG_SHARE, cacheTokens, random);
    requests.push({
      ...lengths,
      prompt: textOf(lengths.promptTokens * charactersPerToken, random),
      arrivalMs: atMs,
      recordedMs: null,
      priority: "normal",
    });
  }
}

function lengthsOf(isLong: boolean, cacheTokens: number, random: Random): Lengths {
  const part = (from: number, to: number) =>
    Math.max(1, Math.round(cacheTokens * (from + (to - from) * random.uniform())));
  return isLong
    ? { promptTokens: part(0.3, 0.45), outputTokens: part(0.06, 0.1) }
    : { promptTokens: part(0.01, 0.04), outputTokens: part(0.03, 0.09) };
}

/** The middle of the ranges of {@linkcode lengthsOf}. */
function meanOutputTokens(cacheTokens: number): number {
  return cacheTokens * (LONG_SHARE * 0.08 + (1 - LONG_SHARE) * 0.06);
}

const names = ["Anna", "Ben", "Clara", "David", "Ella", "Finn", "Greta", "Hugo"];
const animals = ["a fox", "a cat", "an owl", "a bear", "a mouse", "a duck", "a horse"];
const places = ["in the forest", "by the river", "on the hill", "at the market", "in the garden"];

/** A text like the prompts. */
export function sampleText(): string {
  return textOf(SAMPLE_LENGTH, new Random(0));
}

function textOf(numCharacters: number, random: Random): string {
  const choose = <T>(values: readonly T[]) => values[random.below(values.length)];
  let text = "";
  while (text.length < numCharacters) {
    text += `${choose(names)} met ${choose(animals)} ${choose(places)}. `;
  }
  return text.slice(0, Math.max(1, Math.round(numCharacters)));
}

/** The load of the demo: bursts that ask for more KV cache than there is. */
import type { LoadRequest } from "../../bench/load_request.ts";
import { Random } from "../../core/random.ts";

/** KV cache that a burst asks for, as a multiple of what all instances have. */
const BURST_FILL = 2;
/** The requests of a burst come within this part of the time until the next. */
const BURST_SHARE = 0.15;
/** Share of the requests that are long. */
const LONG_SHARE = 0.15;
/** Characters of a text that is long enough to count its tokens. */
const SAMPLE_LENGTH = 2_000;

export interface LoadShape {
  readonly seconds: number;
  /** Output tokens per second that the requests ask for, on average: it says how often bursts come. */
  readonly tokensPerSecond: number;
  readonly numInstances: number;
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

/** Requests in the order of their times; one burst at least. Prompts are sentences. */
export function demoLoad(shape: LoadShape): LoadRequest[] {
  const { seconds, tokensPerSecond, charactersPerToken, random } = shape;
  const requests: LoadRequest[] = [];
  let startMs = 0;
  do {
    const burst = burstOf(shape);
    const tokens = burst.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
    const periodMs = tokens / tokensPerSecond * 1000;
    const spreadMs = Math.min(BURST_SHARE * periodMs, seconds * 1000 - startMs);
    const times = burst.map(() => startMs + spreadMs * random.uniform()).sort((a, b) => a - b);
    for (const [i, lengths] of burst.entries()) {
      requests.push({
        ...lengths,
        prompt: textOf(lengths.promptTokens * charactersPerToken, random),
        arrivalMs: times[i],
        recordedMs: null,
        priority: "normal",
      });
    }
    startMs += periodMs;
  } while (startMs < seconds * 1000);
  return requests;
}

function burstOf({ numInstances, cacheTokens, random }: LoadShape): Lengths[] {
  const burst: Lengths[] = [];
  for (let tokens = 0; tokens < BURST_FILL * numInstances * cacheTokens;) {
    const lengths = lengthsOf(random.uniform() < LONG_SHARE, cacheTokens, random);
    tokens += lengths.promptTokens + lengths.outputTokens;
    burst.push(lengths);
  }
  return burst;
}

/**
 * Dispatch sees how long a prompt is, but not how long its answer will be. Long answers therefore meet on some
 * instances, which run out of blocks while others have room: what migration is for. With answers that are all
 * short, dispatch by load evens out everything by itself.
 */
function lengthsOf(isLong: boolean, cacheTokens: number, random: Random): Lengths {
  const part = (from: number, to: number) =>
    Math.max(1, Math.round(cacheTokens * (from + (to - from) * random.uniform())));
  return isLong
    ? { promptTokens: part(0.3, 0.45), outputTokens: part(0.1, 0.25) }
    : { promptTokens: part(0.01, 0.04), outputTokens: part(0.02, 0.08) };
}

/** Before it come the requests that count as recent. */
const RECENT_MS = 2_000;

/** In the middle half of the load, the time of the request before which the most others have just come. */
export function busiestMs(requests: readonly LoadRequest[]): number {
  const times = requests.map(({ arrivalMs }) => arrivalMs);
  const middle = times.slice(Math.floor(times.length / 4), Math.ceil(3 * times.length / 4));
  const numRecent = (now: number) => times.filter((ms) => ms <= now && ms > now - RECENT_MS).length;
  return middle.reduce((best, now) => numRecent(now) > numRecent(best) ? now : best);
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

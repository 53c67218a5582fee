/** The load of the demo: bursts that ask for about as much KV cache as there is. */
import type { LoadRequest } from "../../bench/load_request.ts";
import { Random } from "../../core/random.ts";

/** KV cache that a burst asks for, as a multiple of what all instances have. */
const BURST_FILL = 1;
/** The requests of a burst come within this part of the time until the next. */
const BURST_SHARE = 0.3;
/** As {@linkcode BURST_FILL}, of the requests that measure the machine. */
const PROBE_FILL = 3;
/** Share of the requests whose prompt is long. */
const LONG_SHARE = 0.08;
/** Characters of a text that is long enough to count its tokens. */
const SAMPLE_LENGTH = 2_000;

/** What the requests are made for. */
export interface LoadShape {
  readonly numInstances: number;
  /** Tokens that fit into the KV cache of an instance. */
  readonly cacheTokens: number;
  /** Of {@linkcode sampleText}, by the model's tokenizer. */
  readonly charactersPerToken: number;
}

export interface LoadRate {
  readonly seconds: number;
  /** Output tokens per second that the requests ask for, on average: it says how often bursts come. */
  readonly tokensPerSecond: number;
}

interface Lengths {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** Requests in the order of their times; one burst at least. Prompts are sentences. */
export function demoLoad(
  shape: LoadShape,
  { seconds, tokensPerSecond }: LoadRate,
  random: Random,
): LoadRequest[] {
  const requests: LoadRequest[] = [];
  let startMs = 0;
  do {
    const burst = lengthsFor(BURST_FILL, shape, random);
    const periodMs = outputTokensOf(burst) / tokensPerSecond * 1000;
    const spreadMs = Math.min(BURST_SHARE * periodMs, seconds * 1000 - startMs);
    const times = burst.map(() => startMs + spreadMs * random.uniform()).sort((a, b) => a - b);
    requests.push(...burst.map((lengths, i) => requestOf(lengths, times[i], shape, random)));
    startMs += periodMs;
  } while (startMs < seconds * 1000);
  return requests;
}

/** Requests of the same lengths that come all at once, so many that the service is full until the last ones end. */
export function probeLoad(shape: LoadShape, random: Random): LoadRequest[] {
  return lengthsFor(PROBE_FILL, shape, random).map((one) => requestOf(one, 0, shape, random));
}

function requestOf(
  lengths: Lengths,
  arrivalMs: number,
  { charactersPerToken }: LoadShape,
  random: Random,
): LoadRequest {
  return {
    ...lengths,
    prompt: textOf(lengths.promptTokens * charactersPerToken, random),
    arrivalMs,
    recordedMs: null,
    priority: "normal",
  };
}

/** As many requests as need `fill` times the KV cache of all instances. */
function lengthsFor(
  fill: number,
  { numInstances, cacheTokens }: LoadShape,
  random: Random,
): Lengths[] {
  const all: Lengths[] = [];
  for (let tokens = 0; tokens < fill * numInstances * cacheTokens;) {
    const lengths = lengthsOf(random.uniform() < LONG_SHARE, cacheTokens, random);
    tokens += lengths.promptTokens + lengths.outputTokens;
    all.push(lengths);
  }
  return all;
}

function outputTokensOf(requests: readonly Lengths[]): number {
  return requests.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
}

/**
 * Where migration matters. Dispatch sees how long a prompt is, but not how long its answer will be: long answers
 * meet on some instances by chance, which run out of blocks while others have room. And a prompt of half a KV cache
 * finds no instance with so much room, although all together have it.
 */
function lengthsOf(isLong: boolean, cacheTokens: number, random: Random): Lengths {
  const part = (from: number, to: number) =>
    Math.max(1, Math.round(cacheTokens * (from + (to - from) * random.uniform())));
  return isLong
    ? { promptTokens: part(0.4, 0.55), outputTokens: part(0.02, 0.08) }
    : { promptTokens: part(0.01, 0.03), outputTokens: part(0.03, 0.2) };
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

/** The text that Prometheus reads, by prom-client's registry. */
import type { Clock } from "../core/clock.ts";
import type { Buckets } from "../core/stats/bucket_counts.ts";
import type { Labels, MetricFamily, Sample } from "./family.ts";

export const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Readers within this time share one text. */
const TEXT_LIFE_MS = 500;

/** The text of all metrics, made when somebody asks for it. However many ask, it is made twice a second. */
export class Exposition {
  readonly #collect: () => Promise<readonly MetricFamily[]>;
  readonly #clock: Clock;
  #text: Promise<string> | null = null;
  #madeMs = -Infinity;

  /** @param collect the metrics at this moment */
  constructor(collect: () => Promise<readonly MetricFamily[]>, clock: Clock) {
    this.#collect = collect;
    this.#clock = clock;
  }

  text(): Promise<string> {
    if (this.#text === null || this.#clock.nowMs() - this.#madeMs > TEXT_LIFE_MS) {
      this.#text = this.#make();
      this.#madeMs = Infinity; // readers wait for the text that is being made
    }
    return this.#text;
  }

  async #make(): Promise<string> {
    try {
      return await expositionOf(await this.#collect());
    } finally {
      this.#madeMs = this.#clock.nowMs();
    }
  }
}

/** The metrics as text. */
export async function expositionOf(families: readonly MetricFamily[]): Promise<string> {
  // Loading it takes tens of milliseconds, which a service without Prometheus saves.
  const { default: Registry } = await import("prom-client/registry");
  const registry = new Registry();
  for (const family of families) {
    if (family.samples.length > 0) registry.registerMetric(metricOf(family));
  }
  return await registry.metrics();
}

interface Value {
  readonly metricName?: string;
  readonly labels: Labels;
  readonly value: number;
}

/** A metric as prom-client's registry reads it. Its own classes would count a second time. */
function metricOf({ name, help, type, ...family }: MetricFamily) {
  const values = type === "histogram"
    ? (family.samples as Sample<Buckets>[]).flatMap((sample) => bucketValues(name, sample))
    : family.samples;
  return { name, help, type, get: () => ({ name, help, type, values }) };
}

function bucketValues(name: string, { labels, value }: Sample<Buckets>): Value[] {
  let count = 0;
  const values = value.counts.map((inBucket, i): Value => {
    count += inBucket;
    const le = String(value.bounds[i] ?? "+Inf");
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: count };
  });
  values.push({ metricName: `${name}_sum`, labels, value: value.sum });
  values.push({ metricName: `${name}_count`, labels, value: count });
  return values;
}

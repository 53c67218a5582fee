import type { Buckets } from "../core/stats/bucket_counts.ts";

export type Labels = Readonly<Record<string, string>>;

export interface Sample<Value> {
  readonly labels: Labels;
  readonly value: Value;
}

/** A metric with its samples, before it is text. Without samples it is left out. */
export type MetricFamily =
  | (MetricName & {
    readonly type: "counter" | "gauge";
    readonly samples: readonly Sample<number>[];
  })
  | (MetricName & { readonly type: "histogram"; readonly samples: readonly Sample<Buckets>[] });

interface MetricName {
  readonly name: string;
  readonly help: string;
}

/** A value that may go down. Samples that are null are left out. */
export function gauge(
  name: string,
  help: string,
  samples: readonly Sample<number | null>[],
): MetricFamily {
  return { type: "gauge", name, help, samples: known(samples) };
}

/** A value that only grows, until its process starts again; its name ends with `_total`. */
export function counter(
  name: string,
  help: string,
  samples: readonly Sample<number | null>[],
): MetricFamily {
  return { type: "counter", name, help, samples: known(samples) };
}

export function histogram(
  name: string,
  help: string,
  samples: readonly Sample<Buckets>[],
): MetricFamily {
  return { type: "histogram", name, help, samples };
}

function known(samples: readonly Sample<number | null>[]): readonly Sample<number>[] {
  return samples.filter((sample): sample is Sample<number> => sample.value !== null);
}

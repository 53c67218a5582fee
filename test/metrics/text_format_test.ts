import assert from "node:assert/strict";
import Registry from "prom-client/registry";
import { BucketCounts, type Buckets } from "../../src/core/stats/bucket_counts.ts";
import {
  counter,
  gauge,
  histogram,
  type Labels,
  type MetricFamily,
} from "../../src/metrics/family.ts";
import { textOf } from "../../src/metrics/text_format.ts";
import { allFamilies } from "./families.ts";

Deno.test("text: gauges, counters and histograms as Prometheus reads them", () => {
  const latency = new BucketCounts([0.1, 1]);
  for (const value of [0.05, 0.5, 0.5, 7]) latency.add(value);
  const text = textOf([
    gauge("x", "A gauge.", [{ labels: { name: 'a "b"\\\n' }, value: 1.5 }, {
      labels: {},
      value: null,
    }]),
    counter("y_total", "Without samples.", []),
    histogram("z_seconds", "Seconds.", [{ labels: { of: "z" }, value: latency }]),
  ]);
  assert.equal(
    text,
    `# HELP x A gauge.
# TYPE x gauge
x{name="a \\"b\\"\\\\\\n"} 1.5

# HELP z_seconds Seconds.
# TYPE z_seconds histogram
z_seconds_bucket{of="z",le="0.1"} 1
z_seconds_bucket{of="z",le="1"} 3
z_seconds_bucket{of="z",le="+Inf"} 4
z_seconds_sum{of="z"} 8.05
z_seconds_count{of="z"} 4
`,
  );
});

Deno.test("text: the same as prom-client's, also of odd labels and values", async () => {
  const latency = new BucketCounts([0.001, 2560]);
  for (const value of [1e-9, 0.1, 1e9]) latency.add(value);
  const values = [0, -0, -1, 1e21, 1.5e-7, Infinity, -Infinity, NaN];
  const texts = ["", "\\", "\\n", "\n\n", '""', "{},=", "\u00e4\u{1f999}"];
  const families = [
    ...allFamilies(),
    gauge("odd", 'Of a \\ and\na "line".', [
      { labels: {}, value: 1 },
      ...values.map((value, i) => ({ labels: { i: String(i) }, value })),
      ...texts.map((text) => ({ labels: { text, more: text }, value: 1 })),
    ]),
    histogram("bare_seconds", "Without labels.", [{ labels: {}, value: latency }]),
  ];
  // One line as prom-client writes it differs: Prometheus knows "NaN" by any case.
  const expected = (await textOfPromClient(families)).replace(" Nan\n", " NaN\n");
  assert.deepEqual(textOf(families).split("\n"), expected.split("\n"));
});

async function textOfPromClient(families: readonly MetricFamily[]): Promise<string> {
  const registry = new Registry();
  for (const { name, help, type, ...family } of families) {
    if (family.samples.length === 0) continue;
    const values = family.samples.flatMap(({ labels, value }) =>
      typeof value === "number" ? [{ labels, value }] : bucketValues(name, labels, value)
    );
    registry.registerMetric({ name, help, type, get: () => ({ name, help, type, values }) });
  }
  return await registry.metrics();
}

function bucketValues(name: string, labels: Labels, { bounds, counts, sum }: Buckets) {
  const upTo = (end: number) => counts.slice(0, end).reduce((total, count) => total + count, 0);
  return [
    ...counts.map((_, i) => ({
      metricName: `${name}_bucket`,
      labels: { ...labels, le: String(bounds[i] ?? "+Inf") },
      value: upTo(i + 1),
    })),
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: upTo(counts.length) },
  ];
}

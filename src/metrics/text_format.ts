/**
 * The text that Prometheus reads
 * (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format). Written here and not by
 * prom-client, whose registry needs 5 times as long, after tens of milliseconds to load, in which no token moves.
 * A test compares both.
 */
import type { Buckets } from "../core/stats/bucket_counts.ts";
import type { Labels, MetricFamily, Sample } from "./family.ts";

export const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** The metrics as text. Families without samples are left out. */
export function textOf(families: readonly MetricFamily[]): string {
  const labelTexts = new LabelTexts();
  return families.filter(({ samples }) => samples.length > 0)
    .map((family) => familyText(family, labelTexts)).join("\n");
}

/** The text of each set of labels, made once: an instance's many samples share one. */
class LabelTexts {
  readonly #made = new Map<Labels, string>();

  /** `name="value",other="value"` */
  of(labels: Labels): string {
    let text = this.#made.get(labels);
    if (text === undefined) {
      text = Object.entries(labels).map(([name, value]) => `${name}="${escapedValue(value)}"`)
        .join(",");
      this.#made.set(labels, text);
    }
    return text;
  }
}

function familyText({ name, help, ...family }: MetricFamily, labelTexts: LabelTexts): string {
  let text = `# HELP ${name} ${escaped(help)}\n# TYPE ${name} ${family.type}\n`;
  if (family.type === "histogram") {
    for (const sample of family.samples) text += histogramText(name, sample, labelTexts);
  } else {
    for (const { labels, value } of family.samples) {
      text += `${name}${inBraces(labelTexts.of(labels))} ${numberText(value)}\n`;
    }
  }
  return text;
}

/** Every bucket counts the values up to its bound, those of the smaller buckets too. */
function histogramText(
  name: string,
  { labels, value: { bounds, counts, sum } }: Sample<Buckets>,
  labelTexts: LabelTexts,
): string {
  const shared = labelTexts.of(labels);
  const start = `${name}_bucket{${shared === "" ? "" : `${shared},`}le="`;
  let text = "", count = 0;
  for (const [i, inBucket] of counts.entries()) {
    count += inBucket;
    text += `${start}${i < bounds.length ? bounds[i] : "+Inf"}"} ${count}\n`;
  }
  const braces = inBraces(shared);
  return `${text}${name}_sum${braces} ${numberText(sum)}\n${name}_count${braces} ${count}\n`;
}

function inBraces(labelText: string): string {
  return labelText === "" ? "" : `{${labelText}}`;
}

function numberText(value: number): string {
  if (value === Infinity) return "+Inf";
  return value === -Infinity ? "-Inf" : String(value);
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapedValue(text: string): string {
  return escaped(text).replaceAll('"', '\\"');
}

/** What a chart shows, in words: for readers who do not see it. */
import { formatNumber } from "../core/stats/spread.ts";
import type { Axis, BarChart, Chart, HeatMap, LineChart, Series } from "./report.ts";

/** Shares of a distribution that are named, in percent. */
const SHARES = [50, 90, 99];

/** One or several sentences. */
export function descriptionOf(chart: Chart): string {
  switch (chart.type) {
    case "lines":
      return linesText(chart);
    case "bars":
      return barsText(chart);
    case "heat":
      return heatText(chart);
  }
}

function linesText({ x, y, series }: LineChart): string {
  const lines = series.map((one) =>
    `${one.name === "" ? "" : `${one.name}: `}${lineText(one.points, x, y)}.`
  );
  return [`${y.label} by ${x.label}.`, ...lines].join(" ");
}

function lineText(points: Series["points"], x: Axis, y: Axis): string {
  if (points.length === 0) return "no values";
  if (isDistribution(points, y)) {
    return SHARES.map((share) => {
      const [value] = points.find(([, percent]) => percent >= share) ?? points.at(-1)!;
      return `${share}% below ${formatNumber(value)}`;
    }).join(", ");
  }
  const [lowest] = extreme(points, (a, b) => a < b);
  const [highest, at] = extreme(points, (a, b) => a > b);
  const place = x.names?.[at] ?? formatNumber(at);
  return `lowest ${formatNumber(lowest)}, highest ${formatNumber(highest)} at ${place}, ` +
    `last ${formatNumber(points.at(-1)![1])}`;
}

/** A line that climbs to 100%. */
function isDistribution(points: Series["points"], y: Axis): boolean {
  return y.max === 100 && points.at(-1)![1] === 100 &&
    points.every(([, percent], i) => i === 0 || percent >= points[i - 1][1]);
}

function extreme(
  points: Series["points"],
  isBetter: (a: number, b: number) => boolean,
): [value: number, at: number] {
  let [[at, value]] = points;
  for (const point of points) if (isBetter(point[1], value)) [at, value] = point;
  return [value, at];
}

function barsText({ groups, y, series }: BarChart): string {
  const texts = groups.map((group, i) => {
    const values = series.map(({ name, values }) =>
      `${name} ${values[i] === null ? "without a value" : formatNumber(values[i])}`
    );
    return `${group}: ${values.join(", ")}.`;
  });
  return [`${y.label}.`, ...texts].join(" ");
}

function heatText({ rows, xLabel, endX, scaleLabel }: HeatMap): string {
  const texts = rows.map(({ name, values }) => {
    const known = values.filter((value) => value !== null);
    if (known.length === 0) return `${name} without values`;
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const most = known.reduce((most, value) => Math.max(most, value), 0);
    return `${name} ${Math.round(100 * mean)}% on average, at most ${Math.round(100 * most)}%`;
  });
  return `Shares of ${scaleLabel}, ${xLabel} 0 to ${Math.round(endX)}: ${texts.join("; ")}.`;
}

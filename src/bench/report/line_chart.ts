import { formatNumber } from "../spread.ts";
import type { LineChart, Series } from "./report.ts";
import { scaleOf } from "./scale.ts";
import { element, escape, short } from "./svg.ts";

const WIDTH = 520, HEIGHT = 300;
const LEFT = 58, RIGHT = 22, TOP = 12, BOTTOM = 46;
const PLOT_WIDTH = WIDTH - LEFT - RIGHT, PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
const BASE = TOP + PLOT_HEIGHT;

/** The markup of a chart; its legend is the page's. */
export function lineChart({ x, y, series, hasMarks = false, title }: LineChart): string {
  const points = series.flatMap((one) => one.points);
  const xScale = scaleOf(x, points.map(([value]) => value));
  const yScale = scaleOf(y, points.map(([, value]) => value));
  const place = (
    [valueX, valueY]: readonly [number, number],
  ) => [LEFT + PLOT_WIDTH * xScale.position(valueX), BASE - PLOT_HEIGHT * yScale.position(valueY)];
  const isCrowded = xScale.ticks.some(({ text }) => text.length > 9) && xScale.ticks.length > 5;
  return element(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    ...yScale.ticks.map(({ position, text }) => horizontal(BASE - PLOT_HEIGHT * position, text)),
    ...xScale.ticks.map(({ position, text }, i) =>
      vertical(LEFT + PLOT_WIDTH * position, isCrowded && i % 2 === 1 ? "" : text)
    ),
    axisLabels(x.label, y.label),
    ...series.map((one) => line(one, place)),
    ...(hasMarks ? series.flatMap((one) => marks(one, place)) : []),
  );
}

function horizontal(y: number, text: string): string {
  return element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }) +
    element("text", { class: "tick", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, escape(text));
}

function vertical(x: number, text: string): string {
  return element("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: BASE }) +
    element("text", { class: "tick", x, y: BASE + 16, "text-anchor": "middle" }, escape(text));
}

function axisLabels(x: string, y: string): string {
  const middle = TOP + PLOT_HEIGHT / 2;
  return element(
    "text",
    { class: "label", x: LEFT + PLOT_WIDTH / 2, y: HEIGHT - 8, "text-anchor": "middle" },
    escape(x),
  ) + element(
    "text",
    {
      class: "label",
      x: 14,
      y: middle,
      "text-anchor": "middle",
      transform: `rotate(-90 14 ${short(middle)})`,
    },
    escape(y),
  );
}

type Place = (point: readonly [number, number]) => number[];

function line({ color, isDashed, points, name }: Series, place: Place): string {
  if (points.length === 0) return "";
  const d = points.map((point, i) => `${i === 0 ? "M" : "L"}${place(point).map(short).join(" ")}`)
    .join("");
  const dash = isDashed ? "4 4" : undefined;
  return element(
    "path",
    { class: `line c${color}`, d, "stroke-dasharray": dash },
    element("title", {}, escape(name)),
  );
}

function marks({ color, points, name }: Series, place: Place): string[] {
  return points.map((point) => {
    const [cx, cy] = place(point);
    const title = element("title", {}, escape(`${name}: ${formatNumber(point[1])}`));
    return element("circle", { class: `mark c${color}`, cx, cy, r: 4 }, title);
  });
}

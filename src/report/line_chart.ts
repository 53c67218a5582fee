import { formatNumber } from "../core/stats/spread.ts";
import { descriptionOf } from "./description.ts";
import type { LineChart, Series } from "./report.ts";
import { scaleOf, type Tick } from "./scale.ts";
import { element, escape, short } from "./svg.ts";

const WIDTH = 520, HEIGHT = 300;
const LEFT = 58, RIGHT = 22, TOP = 12, BOTTOM = 46;
const PLOT_WIDTH = WIDTH - LEFT - RIGHT, PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
const BASE = TOP + PLOT_HEIGHT;
/** Width of a character of the page's 11 px font: an estimate, because nothing here measures text. */
const CHAR_WIDTH = 6;
const LABEL_GAP = 4, ROW_HEIGHT = 12;

/** The markup of a chart without a legend, which the page adds. */
export function lineChart(chart: LineChart): string {
  const { x, y, series, hasMarks = false, title } = chart;
  const points = series.flatMap((one) => one.points);
  const xScale = scaleOf(x, points.map(([value]) => value));
  const yScale = scaleOf(y, points.map(([, value]) => value));
  const place = (
    [valueX, valueY]: readonly [number, number],
  ) => [LEFT + PLOT_WIDTH * xScale.position(valueX), BASE - PLOT_HEIGHT * yScale.position(valueY)];
  return element(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    element("desc", {}, escape(descriptionOf(chart))),
    ...yScale.ticks.map(({ position, text }) => horizontal(BASE - PLOT_HEIGHT * position, text)),
    ...xTicks(xScale.ticks),
    axisLabels(x.label, y.label),
    ...mainLast(series).map((one) => line(one, place)),
    ...(hasMarks ? series.flatMap((one) => marks(one, place)) : []),
  );
}

function horizontal(y: number, text: string): string {
  return element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }) +
    element("text", { class: "tick", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, escape(text));
}

/** Labels that do not fit next to each other go in two rows; if two are not enough, some are left out. */
function xTicks(ticks: readonly Tick[]): string[] {
  const spacing = PLOT_WIDTH / ticks.length;
  const widest = Math.max(...ticks.map(({ text }) => text.length)) * CHAR_WIDTH + LABEL_GAP;
  const numRows = widest <= spacing ? 1 : 2;
  const stride = Math.ceil(widest / spacing / numRows);
  return ticks.map(({ position, text }, i) =>
    vertical(
      LEFT + PLOT_WIDTH * position,
      i % stride === 0 ? text : "",
      Math.floor(i / stride) % numRows,
    )
  );
}

/** @param row row of the label, from 0 */
function vertical(x: number, text: string, row: number): string {
  const y = BASE + 14 + ROW_HEIGHT * row;
  return element("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: BASE }) +
    element("text", { class: "tick below", x, y, "text-anchor": "middle" }, escape(text));
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

/** What is drawn last is above the others. */
function mainLast(series: readonly Series[]): Series[] {
  return series.toSorted((a, b) => Number(a.isMain ?? false) - Number(b.isMain ?? false));
}

function line({ color, isDashed, isMain, points, name }: Series, place: Place): string {
  if (points.length === 0) return "";
  const d = points.map((point, i) => `${i === 0 ? "M" : "L"}${place(point).map(short).join(" ")}`)
    .join("");
  const dash = isDashed ? "4 4" : undefined;
  return element(
    "path",
    { class: `line c${color}${isMain ? " main" : ""}`, d, "stroke-dasharray": dash },
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

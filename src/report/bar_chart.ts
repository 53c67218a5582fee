import { formatNumber } from "../core/stats/spread.ts";
import type { BarChart } from "./report.ts";
import { descriptionOf } from "./description.ts";
import { scaleOf } from "./scale.ts";
import { element, escape } from "./svg.ts";

const WIDTH = 520, HEIGHT = 300;
const LEFT = 58, RIGHT = 12, TOP = 12, BOTTOM = 46;
const PLOT_WIDTH = WIDTH - LEFT - RIGHT, PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
const BASE = TOP + PLOT_HEIGHT;
/** Part of a group's width that its bars take. */
const FILLED = 0.78;
const MAX_BAR_WIDTH = 42;
/** Width of a character of the page's 11 px font: an estimate, because nothing here measures text. */
const CHAR_WIDTH = 6;

/** The markup of a chart without a legend, which the page adds. */
export function barChart(chart: BarChart): string {
  const { title, groups, y, series } = chart;
  const values = series.flatMap((one) => one.values.filter((value) => value !== null));
  const scale = scaleOf(y, values);
  const spacing = PLOT_WIDTH / Math.max(1, groups.length);
  const width = Math.min(MAX_BAR_WIDTH, spacing * FILLED / Math.max(1, series.length));
  const stride = Math.ceil(Math.max(...groups.map((name) => name.length)) * CHAR_WIDTH / spacing);
  const numRows = Math.min(2, stride);
  const middle = (group: number) => LEFT + spacing * (group + 0.5);
  return element(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    element("desc", {}, escape(descriptionOf(chart))),
    ...scale.ticks.map(({ position, text }) => gridLine(BASE - PLOT_HEIGHT * position, text)),
    ...groups.map((name, group) =>
      group % Math.ceil(stride / numRows) === 0
        ? element("text", {
          class: "tick below",
          x: middle(group),
          y: BASE + 14 + 12 * (group % numRows),
          "text-anchor": "middle",
        }, escape(name))
        : ""
    ),
    ...series.flatMap(({ name, color, values }, place) =>
      values.map((value, group) => {
        if (value === null) return "";
        const height = Math.max(1, PLOT_HEIGHT * scale.position(value));
        const x = middle(group) + (place - series.length / 2) * width;
        return element(
          "rect",
          { class: `bar c${color}`, x: x + 0.5, y: BASE - height, width: width - 1, height },
          element("title", {}, escape(`${name}, ${groups[group]}: ${formatNumber(value)}`)),
        );
      })
    ),
    element("text", {
      class: "label",
      x: 14,
      y: TOP + PLOT_HEIGHT / 2,
      "text-anchor": "middle",
      transform: `rotate(-90 14 ${TOP + PLOT_HEIGHT / 2})`,
    }, escape(y.label)),
  );
}

function gridLine(y: number, text: string): string {
  return element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }) +
    element("text", { class: "tick", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, escape(text));
}

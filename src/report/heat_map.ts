import { descriptionOf } from "./description.ts";
import type { HeatMap } from "./report.ts";
import { scaleOf } from "./scale.ts";
import { element, escape } from "./svg.ts";

const WIDTH = 520, LEFT = 84, RIGHT = 12, TOP = 4, BOTTOM = 40;
const ROW_HEIGHT = 14, MIN_ROW_HEIGHT = 5, MAX_ROWS_HEIGHT = 330;
/** More columns than this would be too narrow to see. */
const MAX_COLUMNS = 200;

/** The markup of a heat map: shades from nothing at 0 to the full colour at 1. */
export function heatMap(chart: HeatMap): string {
  const { title, rows, xLabel, endX } = chart;
  const rowHeight = Math.max(
    MIN_ROW_HEIGHT,
    Math.min(ROW_HEIGHT, MAX_ROWS_HEIGHT / Math.max(1, rows.length)),
  );
  const height = TOP + rows.length * rowHeight + BOTTOM;
  const base = TOP + rows.length * rowHeight;
  const hasNames = rowHeight >= 9;
  return element(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title, class: "heat" },
    element("desc", {}, escape(descriptionOf(chart))),
    ...rows.map(({ name, values }, i) => {
      const y = TOP + i * rowHeight;
      const label = hasNames || i % 8 === 0 ? name : "";
      return element(
        "text",
        { class: "tick", x: LEFT - 6, y: y + rowHeight / 2 + 4, "text-anchor": "end" },
        escape(label),
      ) + cells(thinned(values), y, rowHeight - 1);
    }),
    ...scaleOf({ label: xLabel, scale: "linear" }, [endX]).ticks.map(({ position, text }) =>
      element(
        "text",
        {
          class: "tick below",
          x: LEFT + position * (WIDTH - LEFT - RIGHT),
          y: base + 14,
          "text-anchor": position === 1 ? "end" : "middle",
        },
        escape(text),
      )
    ),
    element(
      "text",
      { class: "label", x: (LEFT + WIDTH - RIGHT) / 2, y: height - 6, "text-anchor": "middle" },
      escape(xLabel),
    ),
  );
}

/** Averages neighbours until at most `MAX_COLUMNS` values are left. */
function thinned(values: readonly (number | null)[]): readonly (number | null)[] {
  const size = Math.ceil(values.length / MAX_COLUMNS);
  if (size <= 1) return values;
  const columns: (number | null)[] = [];
  for (let i = 0; i < values.length; i += size) {
    const some = values.slice(i, i + size).filter((value) => value !== null);
    columns.push(
      some.length === 0 ? null : some.reduce((sum, value) => sum + value, 0) / some.length,
    );
  }
  return columns;
}

/** The rectangles of a row; equal neighbours share one. */
function cells(values: readonly (number | null)[], y: number, height: number): string {
  const width = (WIDTH - LEFT - RIGHT) / Math.max(1, values.length);
  let text = "";
  for (let i = 0; i < values.length;) {
    const shade = shadeOf(values[i]);
    let end = i + 1;
    while (end < values.length && shadeOf(values[end]) === shade) end++;
    if (shade !== null) {
      const x = LEFT + i * width;
      text += element("rect", { x, y, width: (end - i) * width + 0.2, height, class: `h${shade}` });
    }
    i = end;
  }
  return text;
}

/** The shade of a value, 0 to 10; null for no value. */
function shadeOf(value: number | null): number | null {
  return value === null ? null : Math.round(10 * Math.min(1, Math.max(0, value)));
}

/** The plots of the last minutes, drawn by uPlot. */
import { $, setText } from "./dom.js";
import { duration, rate, withoutZeros } from "./format.js";

/** @import { FeedPoint } from "../server/feed/records.ts" */

const HEIGHT = 132;

/**
 * A time that the plots show: a young service has no history for the longest.
 * @typedef {object} Span
 * @property {number} seconds
 * @property {string} words
 * @property {readonly string[]} ticks at equal distances, the last at the right edge
 */

/** @type {readonly Span[]} */
const spans = [
  { seconds: 60, words: "last minute", ticks: ["−45 s", "−30", "−15", "now"] },
  { seconds: 120, words: "last two minutes", ticks: ["−90 s", "−60", "−30", "now"] },
  { seconds: 300, words: "last five minutes", ticks: ["−4 min", "−3", "−2", "−1", "now"] },
];

/** The shortest span that shows everything, else the longest. @param {number} seconds @returns {Span} */
export function spanOf(seconds) {
  return spans.find((span) => seconds <= span.seconds) ?? spans[spans.length - 1];
}

/**
 * @typedef {object} Line
 * @property {(point: FeedPoint) => number | null} value
 * @property {string} color name of a CSS variable
 * @property {boolean} [isBar]
 */

/**
 * @typedef {object} Plot
 * @property {string} id
 * @property {(value: number) => string} text
 * @property {number} [least] the top of the y axis is not below it
 * @property {readonly Line[]} lines
 */

const count = (/** @type {number} */ value) => String(Math.round(value));

/** @type {readonly Plot[]} */
const plots = [
  {
    id: "plot-ttft",
    text: duration,
    lines: [
      { value: ({ ttftMs }) => ttftMs?.[0] ?? null, color: "--accent" },
      { value: ({ ttftMs }) => ttftMs?.[1] ?? null, color: "--high" },
    ],
  },
  {
    id: "plot-tpot",
    text: duration,
    lines: [
      { value: ({ tpotMs }) => tpotMs?.[0] ?? null, color: "--accent" },
      { value: ({ tpotMs }) => tpotMs?.[1] ?? null, color: "--high" },
    ],
  },
  {
    id: "plot-tokens",
    text: rate,
    lines: [
      { value: ({ outputTokensPerSecond }) => outputTokensPerSecond, color: "--accent" },
      { value: ({ promptTokensPerSecond }) => promptTokensPerSecond, color: "--good" },
    ],
  },
  {
    id: "plot-moves",
    text: count,
    least: 2,
    lines: [
      { value: ({ migrations }) => migrations, color: "--moved", isBar: true },
      { value: ({ preemptions }) => preemptions, color: "--bad", isBar: true },
    ],
  },
];

export class Plots {
  /** @type {{ plot: Plot, keys: HTMLElement[], names: string[], chart: any }[]} */
  #charts = [];
  /** @type {readonly FeedPoint[]} */
  #points = [];
  #nowMs = 0;
  #span = spans[0];
  /** Index of the point under the pointer, in all plots. @type {number | null} */
  #pointed = null;

  constructor() {
    for (const plot of plots) {
      const keys = /** @type {HTMLElement[]} */ ([
        .../** @type {Element} */ ($(plot.id).parentElement).querySelectorAll(".key"),
      ]);
      const names = keys.map((key) => key.textContent ?? "");
      this.#charts.push({ plot, keys, names, chart: null });
    }
    this.#nameSpan();
    this.#draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    new ResizeObserver(() => {
      for (const { plot, chart } of this.#charts) {
        const width = $(plot.id).clientWidth;
        if (width > 0 && chart.width !== width) chart.setSize({ width, height: HEIGHT });
      }
    }).observe($("plot-ttft"));
  }

  /** @param {readonly FeedPoint[]} points @param {number} nowMs */
  show(points, nowMs) {
    this.#points = points;
    this.#nowMs = nowMs;
    const span = spanOf((nowMs - (points[0]?.atMs ?? nowMs)) / 1000);
    if (span !== this.#span) {
      this.#span = span;
      this.#nameSpan();
    }
    for (const { plot, chart } of this.#charts) chart.setData(this.#dataOf(plot));
    this.#showValues();
  }

  /** Says in words what the plots show. */
  #nameSpan() {
    const { words } = this.#span;
    setText($("plots-title"), words[0].toUpperCase() + words.slice(1));
    for (const { plot, names } of this.#charts) {
      const box = $(plot.id);
      const title = box.parentElement?.querySelector("figcaption")?.firstChild?.textContent ?? "";
      box.setAttribute("aria-label", `${title.trim()}: ${names.join(" and ")} over the ${words}`);
    }
  }

  #draw() {
    for (const one of this.#charts) {
      one.chart?.destroy();
      one.chart = this.#chartOf(one.plot);
    }
  }

  /** @param {Plot} plot */
  #dataOf({ lines }) {
    return [
      this.#points.map(({ atMs }) => atMs / 1000),
      ...lines.map(({ value }) => this.#points.map(value)),
    ];
  }

  /** @param {Plot} plot */
  #chartOf(plot) {
    const uPlot = /** @type {any} */ (globalThis).uPlot;
    const box = $(plot.id);
    const color = (/** @type {string} */ name) => resolvedColor(name);
    const axis = {
      stroke: color("--muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
    };
    const options = {
      width: Math.max(200, box.clientWidth),
      height: HEIGHT,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "time" }, y: false, drag: { setScale: false }, points: { size: 7 } },
      scales: {
        x: {
          time: true,
          range: () => [this.#nowMs / 1000 - this.#span.seconds, this.#nowMs / 1000],
        },
        y: {
          range: (
            /** @type {any} */ _,
            /** @type {any} */ __,
            /** @type {number | null} */ max,
          ) => [0, niceTop(Math.max(plot.least ?? 0, max ?? 0))],
        },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 22,
          gap: 5,
          splits: () => {
            const { seconds, ticks } = this.#span;
            return ticks.map((_, i) =>
              this.#nowMs / 1000 - seconds * (ticks.length - 1 - i) / ticks.length
            );
          },
          values: () => this.#span.ticks,
        },
        {
          ...axis,
          size: 58,
          gap: 4,
          splits: (
            /** @type {any} */ _,
            /** @type {any} */ __,
            /** @type {number} */ ___,
            /** @type {number} */ top,
          ) => [0, top / 2, top],
          values: (/** @type {any} */ _, /** @type {number[]} */ values) =>
            values.map((value) => value === 0 ? "0" : withoutZeros(plot.text(value))),
        },
      ],
      series: [
        {},
        ...plot.lines.map(({ color: name, isBar }, i) => ({
          stroke: color(name),
          width: isBar ? 0 : 1.75,
          fill: isBar ? color(name) : undefined,
          paths: isBar ? uPlot.paths.bars({ size: [0.42, 8], align: i === 0 ? -1 : 1 }) : undefined,
          points: { show: false },
        })),
      ],
      hooks: {
        setCursor: [(/** @type {any} */ chart) => {
          const index = chart.cursor.idx ?? null;
          if (index === this.#pointed) return;
          this.#pointed = index;
          this.#showValues();
        }],
      },
    };
    return new uPlot(options, this.#dataOf(plot), box);
  }

  /** The values at the pointer, else the newest, beside the names of the lines. */
  #showValues() {
    const point = this.#points[this.#pointed ?? this.#points.length - 1] ?? this.#points.at(-1);
    for (const { plot, keys, names } of this.#charts) {
      for (const [i, key] of keys.entries()) {
        const value = point === undefined ? null : plot.lines[i].value(point);
        setText(key, value === null ? names[i] : `${names[i]} ${plot.text(value)}`);
      }
    }
  }
}

/** The next of 1, 2, 4, 6, 8, 10, ... times a power of ten: its half is a round number too. @param {number} max */
export function niceTop(max) {
  if (max <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  const step = [1, 2, 4, 6, 8, 10].find((factor) => factor * power >= max) ?? 10;
  return step * power;
}

/** Canvas knows no CSS variables. @param {string} name */
function resolvedColor(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

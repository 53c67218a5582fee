import assert from "node:assert/strict";
import { renderReport } from "../../src/report/html.ts";
import type { Chart, Report } from "../../src/report/report.ts";
import { scaleOf } from "../../src/report/scale.ts";

const lines: Chart = {
  type: "lines",
  title: "Latency <s>",
  x: { label: "seconds", scale: "log" },
  y: { label: "%", scale: "linear", max: 100 },
  series: [
    { name: "a & b", color: 0, points: [[0, 0], [0.1, 50], [10, 100]] },
    { name: "empty", color: 1, isDashed: true, points: [] },
  ],
  hasMarks: true,
};
const bars: Chart = {
  type: "bars",
  title: "Bars",
  groups: ["one", "two"],
  y: { label: "s", scale: "log" },
  series: [{ name: "a", color: 0, values: [1, null] }, { name: "b", color: 1, values: [0, 30] }],
};
const heat: Chart = {
  type: "heat",
  title: "Memory",
  xLabel: "seconds",
  endX: 60,
  rows: [{ name: "instance 0", values: [0, 0.5, 0.5, null, 1.5] }, { name: "none", values: [] }],
  scaleLabel: "all",
};

function report(charts: readonly Chart[]): Report {
  return {
    title: "T",
    notes: ["<script>alert(1)</script>"],
    sections: [{
      title: "S",
      blocks: [
        { type: "table", table: { header: ["", "v"], rows: [["x", "<1>"]] } },
        { type: "charts", charts },
      ],
    }],
  };
}

Deno.test("a report is one page that loads nothing and runs no script", () => {
  const html = renderReport(report([lines, heat]));
  assert.ok(html.startsWith("<!doctype html>"));
  assert.doesNotMatch(html, /<script|src=|href="(?!#)|url\(|@import/);
  assert.match(html, /&lt;script&gt;/);
  assert.match(html, /<td>&lt;1&gt;<\/td>/);
  assert.match(html, /a &amp; b/);
});

Deno.test("an axis of counts has whole numbers, and a single line needs no legend", () => {
  const chart = (isCount: boolean): Chart => ({
    type: "lines",
    title: "Moves",
    x: { label: "seconds", scale: "linear" },
    y: { label: "requests", scale: "linear", isCount },
    series: [{ name: "", color: 0, points: [[0, 0], [9, 0], [9, 1]] }],
  });
  const html = (isCount: boolean) => renderReport(report([chart(isCount)]));
  assert.match(html(false), />0\.2</);
  assert.doesNotMatch(html(true), />0\.2</);
  assert.doesNotMatch(html(true), /class="legend"/);
});

Deno.test("a chart says in words what it shows, and a legend's samples say nothing", () => {
  const html = renderReport(
    report([lines, bars, heat, { ...lines, y: { label: "s", scale: "linear" } }]),
  );
  assert.deepEqual([...html.matchAll(/<desc>(.*?)<\/desc>/g)].map(([, text]) => text), [
    "% by seconds. a &amp; b: 50% below 0.100, 90% below 10.0, 99% below 10.0. empty: no values.",
    "s. one: a 1.00, b 0. two: a without a value, b 30.0.",
    "Shares of all, seconds 0 to 60: instance 0 63% on average, at most 150%; none without values.",
    "s by seconds. a &amp; b: lowest 0, highest 100 at 10.0, last 100. empty: no values.",
  ]);
  for (const [svg] of html.matchAll(/<svg [^>]*>/g)) {
    assert.match(svg, /role="img" aria-label="|aria-hidden="true"/);
  }
});

Deno.test("no coordinate of a chart is missing, whatever the values", () => {
  const html = renderReport(report([
    lines,
    heat,
    { ...lines, series: [] },
    { ...lines, series: [{ name: "one", color: 0, points: [[5, 0]] }] },
    { ...lines, x: { label: "", scale: "linear", names: ["a", "b"] } },
    bars,
    { ...bars, groups: [], series: [] },
  ]));
  assert.doesNotMatch(html, /NaN|Infinity|undefined/);
});

Deno.test("equal neighbours of a heat map are one rectangle, gaps none", () => {
  const html = renderReport(report([heat]));
  const row = html.match(/<desc>.*<\/figure>/s)![0].split("<text")[1];
  assert.deepEqual([...row.matchAll(/class="h(\d+)"/g)].map(([, shade]) => shade), [
    "0",
    "5",
    "10",
  ]);
});

Deno.test("axes: a linear one begins at 0, a logarithmic one spans whole decades", () => {
  const linear = scaleOf({ label: "", scale: "linear" }, [3, 47]);
  assert.deepEqual(linear.ticks.map(({ text }) => text), ["0", "10", "20", "30", "40"]);
  assert.equal(linear.position(47), 1);
  assert.equal(linear.position(23.5), 0.5);
  const log = scaleOf({ label: "", scale: "log" }, [0.2, 0, 30]);
  assert.deepEqual(log.ticks.map(({ text }) => text), ["0.1", "1", "10", "100"]);
  assert.equal(log.position(0), 0);
  assert.ok(Math.abs(log.position(1) - 1 / 3) < 1e-9);
});

Deno.test("names under an axis do not overlap, and 15 short ones are all there", () => {
  for (const length of [6, 7, 30]) {
    const names = Array.from({ length: 15 }, (_, i) => String(i).padStart(length, "n"));
    const html = renderReport(
      report([{ ...lines, x: { label: "", scale: "linear", names }, series: [] }]),
    );
    const texts = [
      ...html.matchAll(/<text class="tick below" x="([\d.]+)" y="([\d.]+)"[^>]*>(n+\d+)</g),
    ];
    if (length < 8) assert.deepEqual(texts.map(([, , , text]) => text), names);
    for (const y of new Set(texts.map(([, , y]) => y))) {
      const row = texts.filter((text) => text[2] === y).map(([, x]) => Number(x));
      for (let i = 1; i < row.length; i++) {
        assert.ok(row[i] - row[i - 1] >= 6 * length, `${length} characters at ${row}`);
      }
    }
  }
});

Deno.test("bars stand for values that are there, and say them", () => {
  const html = renderReport(report([bars]));
  const titles = [...html.matchAll(/<rect class="bar c\d"[^>]*><title>([^<]*)</g)];
  assert.deepEqual(titles.map(([, title]) => title), ["a, one: 1.00", "b, one: 0", "b, two: 30.0"]);
});

Deno.test("the main line is drawn last, so that it is above the others", () => {
  const points = [[0, 1], [1, 2]] as const;
  const series = [{ name: "ours", color: 0, isMain: true, points }, {
    name: "b",
    color: 1,
    points,
  }];
  const html = renderReport(report([{ ...lines, series }]));
  const classes = [...html.matchAll(/<path class="([^"]*)"/g)].map(([, name]) => name);
  assert.deepEqual(classes, ["line c1", "line c0 main"]);
});

Deno.test("the lead is above the notes, verdicts are words too, and what is folded is closed", () => {
  const cells = [{ text: "2x", verdict: "better" }, { text: "0.5x", verdict: "worse" }] as const;
  const html = renderReport({
    ...report([]),
    lead: "It is <faster>.",
    folded: { title: "Options", lines: ["--a & b"] },
    sections: [{
      title: "S",
      blocks: [{ type: "table", table: { header: ["", "x", "y"], rows: [["m", ...cells]] } }],
    }],
  });
  assert.ok(html.indexOf("It is &lt;faster&gt;.") < html.indexOf("&lt;script&gt;"));
  assert.match(html, /<td class="better">2x <span role="img" aria-label="better"/);
  assert.match(html, /<td class="worse">0.5x <span role="img" aria-label="worse"/);
  assert.match(html, /<details><summary>Options<\/summary><p>--a &amp; b<\/p><\/details>/);
});

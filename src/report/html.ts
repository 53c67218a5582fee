import { heatMap } from "./heat_map.ts";
import { barChart } from "./bar_chart.ts";
import { lineChart } from "./line_chart.ts";
import type {
  BarChart,
  Block,
  Chart,
  HeatMap,
  LineChart,
  MarkedCell,
  Report,
  ReportSection,
  Table,
} from "./report.ts";
import { element, escape } from "./svg.ts";

/** Colours that colour-blind readers can tell apart (Okabe and Ito), for light and dark pages. */
const seriesColors = [
  ["#0072b2", "#56b4e9"],
  ["#d55e00", "#ff8c3a"],
  ["#009e73", "#2fd0a0"],
  ["#cc79a7", "#e79bc5"],
  ["#8a6d00", "#f0e442"],
  ["#555555", "#bbbbbb"],
] as const;

/** A self-contained HTML page: it has no script and loads nothing. */
export function renderReport({ title, lead, notes, folded, sections }: Report): string {
  return [
    "<!doctype html>",
    '<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escape(title)}</title><style>${style()}</style></head><body><main>`,
    `<h1>${escape(title)}</h1>`,
    ...(lead === undefined ? [] : [`<p class="lead">${escape(lead)}</p>`]),
    ...notes.map((note) => `<p class="note">${escape(note)}</p>`),
    ...(folded === undefined ? [] : [renderFolded(folded)]),
    ...(sections.length > 2 ? [contents(sections)] : []),
    ...sections.map(renderSection),
    "</main></body></html>",
    "",
  ].join("\n");
}

function renderFolded({ title, lines }: NonNullable<Report["folded"]>): string {
  const items = lines.map((line) => `<p>${escape(line)}</p>`).join("");
  return `<details><summary>${escape(title)}</summary>${items}</details>`;
}

function contents(sections: readonly ReportSection[]): string {
  const links = sections.map(({ title }, i) => `<a href="#s${i}">${escape(title)}</a>`);
  return `<nav>${links.join("")}</nav>`;
}

function renderSection({ title, blocks }: ReportSection, i: number): string {
  return `<section id="s${i}"><h2>${escape(title)}</h2>${blocks.map(renderBlock).join("\n")}` +
    "</section>";
}

function renderBlock(block: Block): string {
  if (block.type === "table") return renderTable(block.table);
  return `<div class="charts">${block.charts.map(renderChart).join("\n")}</div>`;
}

function renderTable({ header, rows }: Table): string {
  const cell = (content: string | MarkedCell, i: number) => {
    if (typeof content !== "string") return markedCell(content);
    const text = escape(content);
    return i === 0 ? `<th scope="row">${text}</th>` : `<td>${text}</td>`;
  };
  const body = rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("\n");
  const head = header.map((text) => `<th scope="col">${escape(text)}</th>`).join("");
  return `<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
}

/** Not by colour alone: a triangle says it too, and screen readers hear the word. */
function markedCell({ text, verdict }: MarkedCell): string {
  const sign = verdict === "better" ? "\u25b2" : "\u25bc";
  return `<td class="${verdict}">${escape(text)} ` +
    `<span role="img" aria-label="${verdict}" title="${verdict}">${sign}</span></td>`;
}

function renderChart(chart: Chart): string {
  const [body, legend] = chart.type === "lines"
    ? [lineChart(chart), lineLegend(chart)]
    : chart.type === "bars"
    ? [barChart(chart), barLegend(chart)]
    : [heatMap(chart), heatLegend(chart)];
  return `<figure><figcaption>${escape(chart.title)}</figcaption>${legend}${body}</figure>`;
}

function barLegend({ series }: BarChart): string {
  const entries = series.map(({ name, color }) =>
    `<span><svg aria-hidden="true" width="12" height="12" viewBox="0 0 12 12">${
      element("rect", { class: `bar c${color}`, x: 0, y: 0, width: 12, height: 12 })
    }</svg>${escape(name)}</span>`
  );
  return `<div class="legend">${entries.join("")}</div>`;
}

function lineLegend({ series }: LineChart): string {
  if (series.every(({ name }) => name === "")) return "";
  const entries = series.map(({ name, color, isDashed, isMain }) => {
    const dash = isDashed ? "4 4" : undefined;
    const stroke = element("line", {
      class: `line c${color}${isMain ? " main" : ""}`,
      x1: 0,
      x2: 22,
      y1: 6,
      y2: 6,
      "stroke-dasharray": dash,
    });
    return `<span><svg aria-hidden="true" width="22" height="12" viewBox="0 0 22 12">${stroke}</svg>${
      escape(name)
    }</span>`;
  });
  return `<div class="legend">${entries.join("")}</div>`;
}

function heatLegend({ scaleLabel }: HeatMap): string {
  const steps = Array.from(
    { length: 11 },
    (_, i) => element("rect", { x: 10 * i, y: 0, width: 10, height: 10, class: `h${i}` }),
  );
  const bar = `<svg aria-hidden="true" width="110" height="10" viewBox="0 0 110 10">${
    steps.join("")
  }</svg>`;
  return `<div class="legend"><span>0 ${bar} ${escape(scaleLabel)}</span></div>`;
}

function style(): string {
  const colors = (mode: 0 | 1) =>
    seriesColors.map((pair, i) => `.c${i}{--series:${pair[mode]}}`).join("");
  const shades = Array.from(
    { length: 11 },
    (_, i) => `.h${i}{fill:color-mix(in oklab,var(--hot) ${i * 10}%,var(--cold))}`,
  ).join("");
  return `
:root{color-scheme:light dark;--page:#fff;--ink:#1c1f24;--soft:#5d6470;--rule:#e3e6ea;--panel:#f7f8fa;
--cold:#eef1f5;--hot:#b5301c;--good:#15703a;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--page:#15181c;--ink:#e8eaee;--soft:#9aa3af;--rule:#2c3138;
--panel:#1b1f24;--cold:#22272e;--hot:#ff7a5c;--good:#5dd68a;--bad:#ff8a7a}${colors(1)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 8px}
h2{font-size:19px;margin:40px 0 12px;padding-top:16px;border-top:1px solid var(--rule)}
.note{margin:2px 0;color:var(--soft);max-width:90ch}
nav{display:flex;flex-wrap:wrap;gap:6px 14px;margin:16px 0 0}
a{color:inherit;text-underline-offset:3px}
.wide{overflow-x:auto;margin-bottom:16px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:3px 14px 3px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th:first-child{text-align:left;font-weight:400;color:var(--soft);position:sticky;left:0;
background:var(--page)}
thead th{font-weight:600;color:var(--ink)}
tbody tr:hover{background:var(--panel)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:20px;
margin-bottom:20px}
figure{margin:0;background:var(--panel);border-radius:8px;padding:14px 14px 8px}
figcaption{font-weight:600;font-size:14px}
svg{display:block;width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:12.5px;color:var(--soft);margin:2px 0 8px}
.legend span{display:inline-flex;align-items:center;gap:6px}
.legend svg{width:auto;flex:none}
text{fill:var(--soft);font:11px system-ui,sans-serif}
.label{font-size:12px}
/* On a phone a chart is half as large, and its letters are not. */
@media(max-width:480px){main{padding:20px 14px 40px}
figure>svg:not(.heat) text{font-size:19px}figure>svg.heat text{font-size:15px}
figure>svg:not(.heat) .below{transform:translateY(6px)}}
.grid{stroke:var(--rule);stroke-width:1}
.lead{font-size:18px;line-height:1.45;margin:10px 0 14px;max-width:75ch}
details{margin:8px 0;color:var(--soft)}
summary{cursor:pointer}
details p{margin:4px 0 4px 18px;font:13px/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
.better{color:var(--good)}
.worse{color:var(--bad)}
td span{font-size:10px}
.bar{fill:var(--series)}
.line{fill:none;stroke:var(--series);stroke-width:1.6;stroke-linejoin:round}
.main{stroke-width:3.4}
.mark{fill:var(--series);stroke:var(--panel);stroke-width:1.5}
${colors(0)}
@media(prefers-color-scheme:dark){${colors(1)}}
${shades}`;
}

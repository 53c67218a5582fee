/** The contents of a report as data; `html.ts` turns it into a page. */

export interface Report {
  readonly title: string;
  /** The result in a sentence or two, above everything else. */
  readonly lead?: string;
  /** Lines below the title. */
  readonly notes: readonly string[];
  /** What few readers want: shown when they open it. */
  readonly folded?: { readonly title: string; readonly lines: readonly string[] };
  readonly sections: readonly ReportSection[];
}

export interface ReportSection {
  readonly title: string;
  readonly blocks: readonly Block[];
}

export type Block =
  | { readonly type: "table"; readonly table: Table }
  /** Shown next to each other where there is room. */
  | { readonly type: "charts"; readonly charts: readonly Chart[] };

export interface Table {
  readonly header: readonly string[];
  /** The first cell of a row is its name. */
  readonly rows: readonly (readonly (string | MarkedCell)[])[];
}

/** A cell that says how a comparison ended. */
export interface MarkedCell {
  readonly text: string;
  readonly verdict: "better" | "worse";
}

export type Chart = LineChart | BarChart | HeatMap;

/** Groups of bars: a group for each name under the x axis, a bar in it for each series. */
export interface BarChart {
  readonly type: "bars";
  readonly title: string;
  readonly groups: readonly string[];
  readonly y: Axis;
  readonly series: readonly BarSeries[];
}

export interface BarSeries {
  readonly name: string;
  readonly color: number;
  /** A value for each group; null for none. */
  readonly values: readonly (number | null)[];
}

export interface LineChart {
  readonly type: "lines";
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  /** Marks each point, for lines of few points. */
  readonly hasMarks?: boolean;
}

export interface Axis {
  readonly label: string;
  readonly scale: "linear" | "log";
  /** Labels of the values 0, 1, 2, ...; absent if the values are numbers. */
  readonly names?: readonly string[];
  readonly max?: number;
  /** The values are whole numbers, and so are the marks. */
  readonly isCount?: boolean;
}

export interface Series {
  /** Empty for a single line that the title names: it has no legend. */
  readonly name: string;
  /** The same number has the same colour in all charts. */
  readonly color: number;
  readonly isDashed?: boolean;
  /** The line that the report is about: it is thicker, and above the others. */
  readonly isMain?: boolean;
  /** In the order of x. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** A heat map: a row for each thing, a column for each moment, a shade for each value from 0 to 1. */
export interface HeatMap {
  readonly type: "heat";
  readonly title: string;
  readonly xLabel: string;
  /** The x value at the right end; the left end is 0. */
  readonly endX: number;
  readonly rows: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
  /** What a value of 1 means. */
  readonly scaleLabel: string;
}

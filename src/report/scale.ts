import { formatNumber } from "../core/stats/spread.ts";
import type { Axis } from "./report.ts";

/** A mark on an axis. */
export interface Tick {
  /** Position from 0 to 1 along the axis. */
  readonly position: number;
  readonly text: string;
}

/** The range of an axis, and its marks. */
export interface Scale {
  /** Position of a value from 0 to 1 along the axis; values beyond an end are put at the end. */
  position(value: number): number;
  readonly ticks: readonly Tick[];
}

/** Most decades of a logarithmic axis. */
const MAX_DECADES = 6;
const MAX_TICKS = 6;

/** An axis that covers all values. */
export function scaleOf(axis: Axis, values: readonly number[]): Scale {
  if (axis.names) return namedScale(axis.names);
  const max = axis.max ?? Math.max(...values, 0);
  return axis.scale === "log" ? logScale(values, max) : linearScale(max, axis.isCount);
}

function namedScale(names: readonly string[]): Scale {
  const position = (value: number) => (value + 0.5) / names.length;
  return { position, ticks: names.map((text, i) => ({ position: position(i), text })) };
}

function linearScale(max: number, isCount = false): Scale {
  const step = Math.max(isCount ? 1 : 0, niceStep(max || 1));
  const top = max || 1;
  const ticks: Tick[] = [];
  for (let value = 0; value <= top * (1 + 1e-9); value += step) {
    ticks.push({ position: value / top, text: formatTick(value) });
  }
  return { position: (value) => clamp(value / top), ticks };
}

function logScale(values: readonly number[], max: number): Scale {
  const positive = values.filter((value) => value > 0);
  const high = Math.ceil(Math.log10(max > 0 ? max : 1) - 1e-9);
  const smallest = positive.length === 0 ? 0.1 : Math.min(...positive);
  const low = Math.max(Math.min(Math.floor(Math.log10(smallest)), high - 1), high - MAX_DECADES);
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => ({
    position: i / (high - low),
    text: formatTick(10 ** (low + i)),
  }));
  return {
    position: (value) => value <= 0 ? 0 : clamp((Math.log10(value) - low) / (high - low)),
    ticks,
  };
}

/** A step of 1, 2 or 5 times a power of ten. */
function niceStep(max: number): number {
  const rough = max / MAX_TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
}

function formatTick(value: number): string {
  return value !== 0 && Math.abs(value) < 100
    ? String(Number(value.toPrecision(3)))
    : formatNumber(value);
}

function clamp(fraction: number): number {
  return Math.min(1, Math.max(0, fraction));
}

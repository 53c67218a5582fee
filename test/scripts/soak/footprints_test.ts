import assert from "node:assert/strict";
import { type Footprint, footprintOf, trendOf } from "../../../scripts/soak/footprints.ts";

const MIB = 2 ** 20;
const minutes = 20;

/** Six looks a minute. */
function series(
  from: number,
  to: number,
  residentMiB: (atMinutes: number) => number,
  openFiles: (atMinutes: number) => number = () => 50,
): Footprint[] {
  return Array.from({ length: 6 * (to - from) }, (_, i) => {
    const atMinutes = from + i / 6;
    return {
      atMinutes,
      residentBytes: MIB * residentMiB(atMinutes),
      openFiles: openFiles(atMinutes),
    };
  });
}

Deno.test("a process that grows only while it warms up is level", () => {
  const trend = trendOf(series(0, minutes, (at) => at < 5 ? 80 + 4 * at : 100), minutes)!;
  assert.ok(trend.isLevel);
  assert.equal(trend.earlyBytes, 100 * MIB);
  assert.ok(Math.abs(trend.bytesPerHour) < 1, `${trend.bytesPerHour}`);
});

Deno.test("a heap that breathes is level", () => {
  assert.ok(trendOf(series(0, minutes, (at) => 100 + 20 * Math.sin(at * 7)), minutes)!.isLevel);
});

Deno.test("a leak of a mebibyte a minute is found, with its slope", () => {
  const trend = trendOf(series(0, minutes, (at) => 100 + at), minutes)!;
  assert.ok(!trend.isLevel);
  assert.ok(Math.abs(trend.bytesPerHour / MIB - 60) < 0.1, `${trend.bytesPerHour / MIB}`);
});

Deno.test("open files that pile up are found", () => {
  const files = series(0, minutes, () => 100, (at) => 50 + 2 * Math.floor(at));
  const trend = trendOf(files, minutes)!;
  assert.ok(!trend.isLevel);
  assert.deepEqual([trend.earlyFiles, trend.lateFiles], [70, 88]);
});

Deno.test("a process that started late or ended early has no trend", () => {
  assert.equal(trendOf(series(6, minutes, () => 100), minutes), null);
  assert.equal(trendOf(series(0, 12, () => 100), minutes), null);
});

Deno.test({
  name: "the footprint of this process, and of one that is not there",
  ignore: Deno.build.os !== "linux",
  fn() {
    const footprint = footprintOf(Deno.pid, 3)!;
    assert.ok(footprint.residentBytes > 10 * MIB && footprint.openFiles > 2);
    assert.equal(footprintOf(2 ** 30, 3), null);
  },
});

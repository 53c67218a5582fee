import assert from "node:assert/strict";
import { readArguments } from "../../../scripts/gpu_verify/main.ts";
import type { Finding } from "../../../scripts/gpu_verify/device.ts";
import { goals, goalText } from "../../../scripts/gpu_verify/goals.ts";
import { goalsOf, markdown } from "../../../scripts/gpu_verify/report.ts";
import { read, type SectionResult } from "../../../scripts/gpu_verify/run_section.ts";
import { sections, type Turn, turnsOf } from "../../../scripts/gpu_verify/sections.ts";

const passed: SectionResult = {
  ...{ name: "ipc", shows: "blocks", outcome: "passed", tookS: 2, limitS: 45, complaint: "" },
  findings: [{ name: "opening", value: "1 ms" }, { name: "pull", value: "2 GB/s" }],
};
const failed: SectionResult = {
  ...{ ...passed, name: "kill", outcome: "failed", findings: [] },
  complaint: "wrong: bytes\nat line 3",
};
const outcomeOf = (id: string) =>
  goalsOf({ ...report, sections: [] }).find(({ goal }) => goal.id === id)!;
const report = { date: "2026-01-01 10:00", commit: "abc", softwareDevice: true, short: true };

Deno.test("every line of a report on the software device says so", () => {
  const text = markdown({ ...report, sections: [passed, failed] });
  const lines = text.split("\n").filter(Boolean);
  assert.ok(lines.length > 8, text);
  for (const line of lines) assert.ok(line.endsWith("(software device, no GPU)"), line);
});

Deno.test("a report of a GPU has headings, findings and complaints", () => {
  const text = markdown({
    ...{ ...report, softwareDevice: false, short: false, sections: [passed, failed] },
  });
  assert.equal(
    text,
    "# GPU verification\n\n2026-01-01 10:00, commit abc\n\n## Goals\n\n" +
      `${goals.map(({ id }) => `- ${goalText(outcomeOf(id))}\n`).join("")}\n` +
      "## ipc: passed\n\nBlocks. 2 s of 45 s\n\n- opening: 1 ms\n- pull: 2 GB/s\n\n" +
      "## kill: failed\n\nBlocks. 2 s of 45 s\n\n    wrong: bytes\n    at line 3\n",
  );
});

Deno.test("a section that shows nothing has not passed", () => {
  assert.ok(read("findings", "hello\n").isEmpty);
  assert.ok(read("doctor", "no JSON").isEmpty);
  assert.ok(read("tests", "").isEmpty);
  assert.ok(read("tests", "ok | 0 passed | 0 failed | 3 ignored (1ms)").isEmpty);
});

Deno.test("findings are read between other lines, and as far as they came", () => {
  const { findings } = read("findings", 'NCCL INFO\n{"name":"a","value":"1"}\n{"name":"b","va');
  assert.deepEqual(findings, [{ name: "a", value: "1" }]);
  const tests = read("tests", "x\nFAILED | 5 passed | 2 failed | 1 ignored (2s)\n");
  assert.deepEqual(tests.findings, [{ name: "tests", value: "5 passed, 2 failed, 1 skipped" }]);
});

Deno.test("arguments are read, and unknown ones are refused", () => {
  const { sections: chosen, out, short } = readArguments([
    ...["--sections", "kill,ipc", "--out", "/x", "--short"],
  ]);
  assert.deepEqual(chosen.map(({ name }) => name), ["ipc", "kill"]);
  assert.deepEqual([out, short], ["/x", true]);
  assert.throws(() => readArguments(["--all"]), /unknown argument: --all/);
  assert.throws(() => readArguments(["--out"]), /--out: expected a value/);
  assert.throws(() => readArguments(["--sections", "x"]), /unknown section: x; expected some of/);
});

Deno.test("the limits of all sections fit into nine minutes on a host with 16 cores", () => {
  const endOf = ({ sections, places }: Turn) => {
    const ends: number[] = new Array(places).fill(0);
    for (const { limitS } of sections) ends[ends.indexOf(Math.min(...ends))] += limitS;
    return Math.max(...ends);
  };
  const sum = turnsOf(sections, 16).reduce((seconds, turn) => seconds + endOf(turn), 0);
  assert.ok(sum < 9 * 60, String(sum));
  assert.equal(new Set(sections.map(({ name }) => name)).size, sections.length);
});

Deno.test("sections that measure run alone, the others beside each other", () => {
  const names = turnsOf(sections, 16).map(({ sections }) => sections.map(({ name }) => name));
  for (const turn of names.filter((turn) => turn.length > 1)) {
    for (const timed of ["decoder", "step", "ipc", "serving", "migrations", "kernels", "gloo"]) {
      assert.ok(!turn.includes(timed), timed);
    }
  }
  assert.deepEqual(names.flat(), sections.map(({ name }) => name));
  assert.equal(turnsOf(sections, 2).every(({ places }) => places === 1), true);
});

Deno.test("every goal is in a report, measured or not", () => {
  const measured = { ...passed, findings: [] as Finding[] };
  measured.findings.push({ name: "goal", value: "x", goal: "decode-8b", measured: 0.87 });
  measured.findings.push({ name: "goal", value: "x", goal: "host-gap", measured: 80 });
  const outcomes = goalsOf({ ...report, sections: [measured] });
  assert.equal(outcomes.length, goals.length);
  const of = (id: string) => outcomes.find(({ goal }) => goal.id === id)!;
  assert.deepEqual([of("decode-8b").outcome, of("host-gap").outcome, of("prefill").outcome], [
    ...["met", "missed", "not measured"],
  ]);
  assert.match(goalText(of("decode-8b")), /^decode-8b: 87%, met\..* at least 85% \(aim 90%\)$/);
  assert.match(goalText(of("prefill")), /^prefill: not measured\./);
  const line = JSON.stringify(measured.findings[0]);
  assert.deepEqual(read("findings", line).findings, [measured.findings[0]]);
});

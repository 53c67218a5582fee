import assert from "node:assert/strict";
import { runSection } from "../../../scripts/gpu_verify/run_section.ts";
import type { Section } from "../../../scripts/gpu_verify/sections.ts";
import { until } from "../../patience.ts";

const target = { softwareDevice: true };

function section(code: string): Section {
  return {
    ...{ name: "test", shows: "a test", limitS: 120, output: "findings" },
    command: () => ["eval", "--no-check", code],
  };
}

Deno.test("a section over its limit is killed with the processes that it started", async () => {
  const code = 'console.log(JSON.stringify({ name: "first", value: "1" }));' +
    'const { pid } = new Deno.Command("sleep", { args: ["600"] }).spawn();' +
    'console.log(JSON.stringify({ name: "pid", value: String(pid) }));' +
    "await new Promise((resolve) => setTimeout(resolve, 600_000));";
  // On a busy machine it may not get so far in the first of these.
  let result = await runSection(section(code), target, 2, {});
  for (const limitS of [10, 40]) {
    if (result.findings.length < 2) result = await runSection(section(code), target, limitS, {});
  }
  assert.equal(result.outcome, "timed out");
  const [first, { value: pid }] = result.findings;
  assert.deepEqual(first, { name: "first", value: "1" });
  // The kernel takes a moment to end a process that was killed.
  await until(() => hasEnded(pid), `process ${pid} has ended`);
});

/** A zombie that nobody waits for has ended, too. */
function hasEnded(pid: string): boolean {
  try {
    return /^\d+ \(.*\) Z/.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return true;
  }
}

Deno.test("a section that fails keeps the end of its output", async () => {
  const { outcome, complaint } = await runSection(
    section('console.error("wrong: bytes"); Deno.exit(1);'),
    ...[target, 120, {}] as const,
  );
  assert.deepEqual({ outcome, complaint }, { outcome: "failed", complaint: "wrong: bytes" });
});

Deno.test("a section that ends well and shows nothing has failed", async () => {
  const { outcome, complaint } = await runSection(section(""), target, 120, {});
  assert.deepEqual([outcome, complaint], ["failed", "it showed nothing"]);
});

Deno.test("a section sees the environment that it is given", async () => {
  const code = 'console.log(JSON.stringify({ name: "seen", value: Deno.env.get("SEEN") }));';
  const { outcome, findings } = await runSection(section(code), target, 30, { SEEN: "yes" });
  assert.deepEqual([outcome, findings], ["passed", [{ name: "seen", value: "yes" }]]);
});

import assert from "node:assert/strict";
import type { MigrationReport } from "../../../src/core/protocol/migration.ts";
import {
  Crossover,
  describePath,
  parseCrossover,
  type PathMeasure,
} from "../../../src/instance/llumlet/crossover.ts";
import { generateRequest } from "../support.ts";
import { pair } from "./world.ts";

Deno.test("--migration-crossover is auto or a number of tokens", () => {
  assert.equal(parseCrossover("auto"), "auto");
  assert.deepEqual(["0", "512"].map(parseCrossover), [0, 512]);
  for (const text of ["", "-1", "1.5", "Auto", "1e3", "9999999999"]) {
    assert.equal(parseCrossover(text), null, text);
  }
});

const to = (instanceId: string, hostName?: string) => ({ instanceId, hostName });

const base: MigrationReport = {
  ...{ migrationId: "m", sourceId: "a", destinationId: "b", requestId: "r", phase: "commit" },
  ...{ outcome: "committed", reason: "", lengthTokens: 100, stages: 1, blocks: 7, downtimeMs: 1 },
  transfer: { bytes: 100_000, descriptors: 1, rounds: 1, transferMs: 10 },
  totalMs: 15,
};

function measured(prefillTokenMs: number | null, fast = { bytes: 100_000, ms: 10, isLate: false }) {
  let nowMs = 0;
  const measures: PathMeasure[] = [];
  const crossover = new Crossover({
    setting: "auto",
    bytesPerToken: 1_000,
    nowMs: () => nowMs,
    prefillTokenMs: () => prefillTokenMs,
    onMeasure: (measure) => measures.push(measure),
  });
  crossover.note(base, fast, to("b"));
  return { crossover, measures, pass: (ms: number) => nowMs += ms };
}

Deno.test("auto: moving costs the same whatever the length, and then so much a token", () => {
  // 10 tokens a ms are moved, beside 5 ms; a token of a prompt takes 0.6 ms: 10 tokens take as long.
  const { crossover, measures, pass } = measured(0.6);
  assert.deepEqual(measures.map(({ crossoverTokens }) => Math.round(crossoverTokens)), [10]);
  assert.ok(crossover.recomputes(9, to("b")));
  assert.ok(!crossover.recomputes(11, to("b")));
  assert.ok(!crossover.recomputes(9, to("c")), "a path that nobody has measured is measured first");
  pass(61_000);
  assert.ok(!crossover.recomputes(9, to("b")), "an old measure is taken anew");
  assert.match(
    describePath(measures[0], "auto"),
    /^the path to b moves 10000 tokens\/s .*below 10 t/,
  );
});

Deno.test("auto: a path that is slower than prompts are computed is told, and recomputed", () => {
  const { crossover, measures } = measured(0.05);
  assert.ok(crossover.recomputes(100_000, to("b")));
  assert.match(describePath(measures[0], "auto"), /slower than recomputing.*are recomputed there/);
  assert.match(describePath(measures[0], 0), /slower than recomputing.*--migration-crossover auto/);
  for (let i = 0; i < 20; i++) {
    crossover.note(base, { bytes: 100_000, ms: 1, isLate: false }, to("b"));
  }
  assert.equal(measures.length, 2, "told again when it has become faster, and once");
  assert.ok(!crossover.recomputes(100_000, to("b")));
});

Deno.test("auto: the path to another host counts for its instances until theirs is measured", () => {
  const { crossover, measures } = measured(0.05);
  const slow = { bytes: 100_000, ms: 10, isLate: false };
  assert.ok(!crossover.recomputes(1_000, to("c", "gpu-2")), "nothing has moved to gpu-2 yet");
  crossover.note(base, slow, to("b", "gpu-2"));
  assert.ok(crossover.recomputes(1_000, to("c", "gpu-2")));
  assert.ok(!crossover.recomputes(1_000, to("c", "gpu-3")), "another host");
  assert.ok(!crossover.recomputes(1_000, to("c")), "the source's own host");
  crossover.note({ ...base, totalMs: 10 }, { ...slow, ms: 0.1 }, to("c", "gpu-2"));
  assert.ok(!crossover.recomputes(1_000, to("c", "gpu-2")), "its own measure counts");
  assert.match(describePath(measures.at(-1)!, "auto"), /^the path to c on gpu-2 moves/);
});

Deno.test("auto: a copy that was given up because it took too long is a measure too", () => {
  const { crossover } = measured(0.05);
  const late = { bytes: 100_000, ms: 5_000, isLate: true };
  const report = { ...base, outcome: "aborted_source", totalMs: 5_010 } as const;
  crossover.note(report, { ...late, isLate: false }, to("c"));
  assert.ok(!crossover.recomputes(1_000, to("c")), "given up for another reason");
  crossover.note(report, late, to("c"));
  assert.ok(crossover.recomputes(1_000, to("c")));
});

Deno.test("auto: requests as long as one that was late are recomputed, for a minute", () => {
  const { crossover, measures, pass } = measured(100, { bytes: 100_000, ms: 1, isLate: false });
  const report = { ...base, outcome: "aborted_source", totalMs: 5_010 } as const;
  assert.ok(!crossover.recomputes(1_000, to("b")));
  crossover.note(report, { bytes: 100_000, ms: 5_000, isLate: true }, to("b"));
  assert.deepEqual([49, 50, 1_000].map((n) => crossover.recomputes(n, to("b"))), [
    false,
    true,
    true,
  ]);
  assert.match(
    describePath(measures.at(-1)!, "auto"),
    /of 50 tokens or more take too long.*recomp/,
  );
  pass(50_000);
  crossover.note(base, { bytes: 10_000, ms: 1, isLate: false }, to("b"));
  pass(11_000);
  assert.ok(!crossover.recomputes(1_000, to("b")), "it is tried again");
});

Deno.test("auto: nothing is known before a prompt was computed, or by copies that were paced", () => {
  assert.ok(!measured(null).crossover.recomputes(1, to("b")));
  const paced = measured(0.6, { bytes: 0, ms: 0, isLate: false });
  assert.ok(!paced.crossover.recomputes(1, to("b")));
  assert.deepEqual(paced.measures, []);
});

Deno.test("a short request is recomputed at the destination: no blocks, the same tokens", async () => {
  for (let tokens = 1; tokens <= 8; tokens++) {
    const { world, a, b } = await pair({ crossover: 100 });
    const request = generateRequest("r", 10, { maxTokens: 40, seed: 7 });
    const followed = await world.generate(a, request);
    await world.until(() => followed.tokens.length === tokens);
    const report = await world.migrate(a, b);
    assert.equal(report.outcome, "committed", report.reason);
    assert.deepEqual([report.isRecomputed, report.blocks, report.transfer.bytes], [true, 0, 0]);
    assert.ok(a.isEmpty);
    await world.checkEnd();
    assert.equal(followed.tokens.length, 40);
    assert.deepEqual(followed.epochs, [0, 1]);
  }
});

Deno.test("a long request moves with its blocks", async () => {
  const { world, a, b } = await pair({ crossover: 20 });
  const followed = await world.generate(a, generateRequest("r", 40, { maxTokens: 60, seed: 7 }));
  await world.until(() => followed.tokens.length === 5);
  const report = await world.migrate(a, b);
  assert.equal(report.isRecomputed, undefined);
  assert.ok(report.blocks > 0);
  await world.checkEnd();
});

Deno.test("where others wait, a short request moves with its blocks", async () => {
  const { world, a, b } = await pair({ crossover: 100 }, { numBlocks: 20 });
  await world.generate(b, generateRequest("x", 10, { maxTokens: 20, seed: 1 }));
  const moving = await world.generate(a, generateRequest("r", 10, { maxTokens: 20, seed: 7 }));
  await world.until(() => moving.tokens.length === 3);
  // It arrived before, and waits on b for more blocks than x leaves.
  const big = { ...generateRequest("big", 70, { maxTokens: 5, seed: 2 }), arrivalMs: 0 };
  await world.generate(b, big);
  await world.pass(1);
  const report = await world.migrate(a, b);
  assert.equal(report.outcome, "committed", report.reason);
  assert.equal(report.isRecomputed, undefined);
  assert.ok(report.blocks > 0);
  await world.checkEnd();
});

Deno.test("auto measures a path by the first move, and recomputes where that is faster", async () => {
  const measures: PathMeasure[] = [];
  // A block takes 60 ms to be copied, a prompt 10 ms.
  const shape = {
    crossover: "auto",
    blockMs: 60,
    limits: { lastStageMaxBlocks: 64, maxStages: 1 },
    copiesBesideSteps: true,
    onPathMeasured: (measure: PathMeasure) => measures.push(measure),
  } as const;
  const { world, a, b } = await pair(shape, shape);
  const recomputed: (boolean | undefined)[] = [];
  for (let i = 0; i < 2; i++) {
    const request = generateRequest(`r${i}`, 20, { maxTokens: 100, seed: i });
    const followed = await world.generate(a, request);
    await world.until(() => followed.tokens.length === 2);
    const report = await world.migrate(a, b, { isUrgent: true });
    assert.equal(report.outcome, "committed", report.reason);
    recomputed.push(report.isRecomputed);
  }
  assert.deepEqual(recomputed, [undefined, true]);
  assert.deepEqual(measures.map(({ crossoverTokens }) => crossoverTokens), [Infinity]);
  await world.checkEnd();
});

Deno.test("auto: on a path so slow that copies are given up, the next request is recomputed", async () => {
  const measures: PathMeasure[] = [];
  // A block takes 9 s to be copied, longer than a stage may take; a prompt 10 ms.
  const shape = {
    crossover: "auto",
    blockMs: 9_000,
    limits: { lastStageMaxBlocks: 64, maxStages: 1 },
    copiesBesideSteps: true,
    onPathMeasured: (measure: PathMeasure) => measures.push(measure),
  } as const;
  const { world, a, b } = await pair(shape, shape);
  const followed = await world.generate(a, generateRequest("r", 20, { maxTokens: 100, seed: 1 }));
  await world.until(() => followed.tokens.length === 2);
  const first = await world.migrate(a, b, { isUrgent: true });
  assert.equal(first.outcome, "aborted_source", first.reason);
  const second = await world.migrate(a, b, { isUrgent: true });
  assert.deepEqual([second.outcome, second.isRecomputed], ["committed", true], second.reason);
  assert.deepEqual(measures.map(({ crossoverTokens }) => crossoverTokens), [Infinity]);
  await world.checkEnd();
});

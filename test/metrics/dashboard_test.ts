import assert from "node:assert/strict";
import { dashboard } from "../../src/metrics/dashboard.ts";
import { unknownNames } from "./families.ts";
import { promtool, testWith } from "./prometheus.ts";

interface ShownPanel {
  readonly id: number;
  readonly title: string;
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets: readonly { readonly expr: string }[];
}
const panels = dashboard().panels as readonly ShownPanel[];
const queries = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));

Deno.test("dashboard: every panel asks for metrics that exist", () => {
  assert.ok(panels.length > 20);
  for (const query of queries) {
    assert.deepEqual(unknownNames(query), [], query);
    assert.match(query, /\{job=~"\$job",instance=~"\$server"/);
  }
});

Deno.test("dashboard: no two panels are in one place, and none is beyond the edge", () => {
  const taken = new Map<string, string>();
  for (const { title, gridPos: { x, y, w, h } } of panels) {
    assert.ok(x + w <= 24, title);
    for (let column = x; column < x + w; column++) {
      for (let row = y; row < y + h; row++) {
        const cell = `${column} ${row}`;
        assert.equal(taken.get(cell), undefined, `${title} at ${cell}`);
        taken.set(cell, title);
      }
    }
  }
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
});

testWith("promtool", "promtool accepts the queries of the dashboard", async (program) => {
  const rules = queries.map((query, i) => ({
    record: `query:${i}`,
    expr: query.replaceAll("$__rate_interval", "1m"),
  }));
  const file = await Deno.makeTempFile({ suffix: ".yml" });
  try {
    await Deno.writeTextFile(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
    const { code, text } = await promtool(program, ["check", "rules", file]);
    assert.equal(code, 0, text);
  } finally {
    await Deno.remove(file);
  }
});

/** The list of `deno task bench`. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { benchHelp, benchmarks, chosenBenchmarks } from "../../scripts/bench/benchmarks.ts";

const directory = join(import.meta.dirname!, "../../scripts/bench");

Deno.test("every benchmark is in the list", () => {
  const files = [...Deno.readDirSync(directory)].map(({ name }) => name);
  const written = files.filter((name) =>
    Deno.readTextFileSync(join(directory, name)).includes("export async function bench")
  );
  assert.deepEqual(Object.keys(benchmarks).map((name) => `${name}.ts`).sort(), written.sort());
});

Deno.test("long benchmarks run only when they are named", () => {
  const chosen = (...names: string[]) => chosenBenchmarks(names).map(([name]) => name);
  assert.deepEqual(chosen("memory"), ["memory"]);
  assert.deepEqual(chosen("engine", "startup"), ["startup", "engine"]);
  const byDefault = chosen();
  assert.ok(byDefault.includes("failure") && !byDefault.includes("memory"));
  assert.throws(
    () => chosen("startup", "speed"),
    /unknown benchmark "speed": expected one of startup, /,
  );
});

Deno.test("the help tells of every benchmark", () => {
  for (const [name, { about }] of Object.entries(benchmarks)) {
    assert.match(benchHelp(), new RegExp(`^  ${name} +${about}`, "m"));
  }
});

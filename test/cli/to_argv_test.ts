import assert from "node:assert/strict";
import { type Argument, camelCase, type Value } from "../../src/cli/arguments/argument.ts";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import {
  engineTable,
  instanceGroups,
  type InstanceOptions,
} from "../../src/cli/arguments/tables.ts";
import { readSettings, toOptions } from "../../src/cli/settings.ts";
import { toArgv } from "../../src/cli/to_argv.ts";
import { Random } from "../../src/core/random.ts";

const index = new ArgumentIndex(instanceGroups);

async function read(argv: string[]): Promise<InstanceOptions> {
  return toOptions<InstanceOptions>(await readSettings(argv, index));
}

Deno.test("options at their defaults need no words", async () => {
  assert.deepEqual(toArgv(await read([])), []);
});

Deno.test("options that differ are written in full", async () => {
  const options = await read(["-q", "awq", "--enforce-eager", "--served-model-name", "a", "b"]);
  assert.deepEqual(toArgv(options), [
    "--served-model-name",
    "a",
    "b",
    "--quantization=awq",
    "--enforce-eager=true",
  ]);
});

Deno.test("options without effect are left out", async () => {
  assert.deepEqual(toArgv(await read(["--trust-remote-code", "--tokenizer-mode=slow"])), []);
});

Deno.test("any options come back from their command line", async () => {
  const random = new Random(11);
  for (let i = 0; i < 200; i++) {
    const options: Record<string, Value> = { ...await read([]) };
    for (const [name, argument] of Object.entries(engineTable)) {
      if (argument.status.kind === "accepted" || random.uniform() < 0.5) continue;
      options[camelCase(name)] = randomValue(argument, random);
    }
    // A profile on the command line implies the device.
    if (options.profilingResultFilePath !== "" && options.device === "auto") options.device = "sim";
    const typed = options as unknown as InstanceOptions;
    assert.deepEqual(await read(toArgv(typed)), options);
  }
});

/** A valid value, often an awkward one. */
function randomValue(argument: Argument, random: Random): Value {
  if (argument.choices !== null) return argument.choices[random.below(argument.choices.length)];
  const { min = -1000, max = 1e6, above } = argument.range;
  switch (argument.kind) {
    case "flag":
    case "boolean":
      return random.uniform() < 0.5;
    case "integer":
      return min + random.below(max - min + 1);
    case "number":
      return Math.max(above ?? min, 0) + (random.uniform() + 1e-9) / 2;
    case "list":
      return Array.from({ length: 1 + random.below(3) }, () => `m${randomText(random)}`);
    default:
      return randomText(random);
  }
}

function randomText(random: Random): string {
  const pieces = ["", " ", "-", "--seed", "=", "a/b", "é", "'\"", "\n", "true", "5"];
  return Array.from({ length: random.below(4) }, () => pieces[random.below(pieces.length)]).join(
    "",
  );
}

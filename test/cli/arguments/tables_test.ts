import assert from "node:assert/strict";
import { entriesOf } from "../../../src/cli/arguments/index.ts";
import { camelCase, fileKey } from "../../../src/cli/arguments/argument.ts";
import { engineDefaults, instanceGroups, serveGroups } from "../../../src/cli/arguments/tables.ts";
import { parseValue } from "../../../src/cli/arguments/values.ts";

const commands = { serve: serveGroups, instance: instanceGroups };

for (const [command, groups] of Object.entries(commands)) {
  Deno.test(`arguments of ${command} have unique names and valid defaults`, () => {
    const seen = new Set<string>();
    for (const { name, argument } of groups.flatMap(entriesOf)) {
      for (const option of [`--${name}`, ...argument.aliases]) {
        assert.ok(!seen.has(option), `${option} is there twice`);
        seen.add(option);
      }
      assert.equal(parseValue(argument, argument.default, () => name), argument.default);
      assert.ok(argument.help.endsWith("."), `${name}: help is a sentence`);
      for (const choice of [...Object.keys(argument.refusedChoices), ...argument.laterChoices]) {
        assert.ok(
          argument.choices?.map(String).includes(String(choice)),
          `${name}: ${choice} is a choice`,
        );
        assert.notEqual(choice, argument.default, `${name}: its default starts`);
      }
    }
  });
}

Deno.test("names become properties and file keys", () => {
  assert.equal(camelCase("use-v2-block-manager"), "useV2BlockManager");
  assert.equal(fileKey("use-v2-block-manager"), "USE_V2_BLOCK_MANAGER");
});

Deno.test("an engine's defaults are those of its arguments", () => {
  const defaults = engineDefaults();
  assert.equal(defaults.blockSize, 16);
  assert.equal(defaults.gpuMemoryUtilization, 0.9);
  assert.equal(defaults.maxNumSeqs, 256);
  assert.equal(defaults.preemptionMode, null);
  assert.equal(defaults.gpuType, "a10");
  assert.ok(Object.values(defaults).every((value) => value !== undefined));
  assert.notEqual(engineDefaults(), defaults, "each caller gets a record of its own");
});

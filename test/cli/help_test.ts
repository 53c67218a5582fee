import assert from "node:assert/strict";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { serveGroups } from "../../src/cli/arguments/tables.ts";
import { commandHelp, wrap } from "../../src/cli/help.ts";
import { profileHelp } from "../../src/cli/simulate/help.ts";
import { parseProfile } from "../../src/executor/sim/profile_file.ts";
import { builtinProfile } from "../../src/executor/sim/roofline.ts";
import { usageLines } from "./usage.ts";

const index = new ArgumentIndex(serveGroups);
const program = "llumnix serve";

Deno.test("options have the form of the reference's usage", () => {
  const lines = usageLines(index);
  assert.equal(lines.length, index.entries.length);
  for (const line of lines) assert.match(line, /^ {12}\[--[a-z0-9-]+( .+)?\]$/);
  const forms = [
    "            [--enable-migration]",
    "            [--shutdown-timeout SECONDS]",
    "            [--enable-defrag ENABLE_DEFRAG]",
    "            [--migration-backend-transfer-type {cuda_ipc,rdma,}]",
    "            [--served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]]",
    "            [--device {auto,cuda,neuron,cpu,null,sim}]",
  ];
  for (const form of forms) assert.ok(lines.includes(form), form);
});

Deno.test("help begins with what the command does", () => {
  const help = commandHelp(program, "Serves.", index, 80);
  assert.match(help, /^Serves\.\n\nusage: llumnix serve \[options\]\n\n\S.*:\n {2}--/);
});

for (const width of [50, 80, 120]) {
  Deno.test(`help fits ${width} columns`, () => {
    const help = commandHelp(program, "Serves.", index, width);
    for (const line of help.split("\n")) {
      const isHeading = /^ {2}--/.test(line);
      const isOneWord = !line.trim().includes(" ");
      assert.ok(line.length <= width || isHeading || isOneWord, line);
    }
  });
}

Deno.test("help explains every argument once, under its group", () => {
  const help = commandHelp(program, "Serves.", index, 80);
  for (const { name } of index.entries) {
    assert.equal(help.match(new RegExp(`^ {2}--${name}(?![a-z0-9-])`, "gm"))?.length, 1, name);
  }
  const groups = help.match(/^[A-Za-z].*:$/gm);
  assert.deepEqual(groups, serveGroups.map(({ title }) => `${title}:`));
});

Deno.test("help of one argument: names, choices, status, default", () => {
  const help = commandHelp(program, "Serves.", index, 80);
  assert.ok(help.includes(`
  --port PORT           Port to listen on; 0 takes a free one. (default: 8000)
`));
  assert.ok(help.includes(`
  --pipeline-parallel-size, -pp PIPELINE_PARALLEL_SIZE
                        Pipeline stages of an instance. Not available yet.
                        (default: 1)
`));
});

Deno.test("wrap keeps every word", () => {
  assert.equal(wrap("a bb ccc dddddddd e", 6, "  "), "  a bb\n  ccc\n  dddddddd\n  e");
  assert.equal(wrap("", 10, "  "), "  ");
});

Deno.test("help of simulate shows a profile that works", () => {
  const [, example] = profileHelp(80).split("\n\n");
  const [profile] = parseProfile(JSON.parse(example), "help");
  assert.deepEqual(profile, builtinProfile("a10", "llama-7b"));
});

import assert from "node:assert/strict";
import { ArgumentIndex, type Entry } from "../../../src/cli/arguments/index.ts";
import { serveGroups } from "../../../src/cli/arguments/tables.ts";
import { llumnixArguments } from "../../../src/cli/arguments/llumnix.ts";
import { vllmArguments } from "../../../src/cli/arguments/vllm.ts";
import { usageLines } from "../usage.ts";

/** The reference pages lie beside the repository; a clone alone does not have them. */
const folder = new URL("../../../../shared/reference/", import.meta.url);
const llumnixPage = readPage("llumnix-arguments.md");
const vllmPage = readPage("vllm-engine-arguments.md");
const index = new ArgumentIndex(serveGroups);

function readPage(name: string): string | null {
  try {
    return Deno.readTextFileSync(new URL(name, folder));
  } catch {
    return null;
  }
}

function testPage(name: string, page: string | null, body: (page: string) => void) {
  const reason = page === null
    ? " (ignored: ../shared/reference is not beside the repository)"
    : "";
  Deno.test({ name: name + reason, ignore: page === null, fn: () => body(page!) });
}

function find(option: string): Entry {
  const entry = index.byOption.get(option);
  assert.ok(entry, `${option} is in no table`);
  return entry;
}

/** The table's default as the reference writes it. */
function plainDefault({ argument }: Entry): string {
  if (argument.kind === "flag") return argument.default ? "on" : "off";
  return argument.default === null ? "none" : String(argument.default);
}

function sameValue(actual: string, expected: string): boolean {
  return actual === expected || (expected !== "" && Number(actual) === Number(expected));
}

testPage("every line of Llumnix's usage block is in ours, in its order", llumnixPage, (page) => {
  const lines = page.match(/^ +\[--.*\]$/gm)!;
  const ours = usageLines(index)
    .map((line) => line.replace(/,(virtual_usage|waiting_first|FIT)\}/, "}"));
  const expected = [...new Set(lines)].sort((a, b) => lines.indexOf(a) - lines.indexOf(b));
  // The page has --polling-interval twice.
  assert.equal(expected.length, lines.length - 1);
  assert.deepEqual(ours.slice(0, expected.length), expected);
  assert.equal(Object.keys(llumnixArguments).length, expected.length);
});

testPage("choices and defaults are those of Llumnix's page", llumnixPage, (page) => {
  const details = page.slice(0, page.indexOf("# Unsupported"));
  const items = [...details.matchAll(/^`(--[a-z-]+)`\n((?:- .*\n?)+)/gm)];
  assert.equal(items.length, Object.keys(llumnixArguments).length);
  for (const [, option, text] of items) {
    const entry = find(option);
    const { choices, extraChoices, kind } = entry.argument;
    const listed = /^- Possible choices: ([^.\n]*)/m.exec(text)?.[1].split(", ");
    const ours = choices?.filter((choice) => choice !== "" && !(choice in extraChoices)) ?? null;
    assert.deepEqual(ours?.toSorted() ?? null, listed?.toSorted() ?? null, option);
    const written = /^- [Dd]efault: (.*)$/m.exec(text)?.[1].replaceAll('"', "");
    const expected = written ?? (kind === "flag" ? "off" : "none");
    const actual = plainDefault(entry);
    assert.ok(sameValue(actual, expected.toLowerCase()) || actual === expected, option);
  }
});

testPage("what Llumnix's page calls unsupported is refused", llumnixPage, (page) => {
  const section = page.slice(page.indexOf("# Unsupported"));
  const options = [...section.matchAll(/^`(--[a-z0-9-]+)`$/gm)].map((match) => match[1]);
  assert.equal(options.length, 6);
  for (const option of options) {
    const { status, refusedChoices } = find(option).argument;
    if (option === "--device") assert.deepEqual(Object.keys(refusedChoices), ["neuron"]);
    else assert.equal(status.kind, "refused", option);
  }
});

/** Defaults that the vLLM page describes in words: what our help says of them. */
const describedDefaults: Readonly<Record<string, string>> = {
  "--model": "llumnix-story, a very small built-in model",
  "--served-model-name": "the value of --model",
  "--tokenizer": "the value of --model",
  "--download-dir": "the Hugging Face cache",
  "--max-model-len": "from the model's config",
  "--max-num-batched-tokens": "the larger of 2048 and the model length",
  "--max-log-len": "2048; vLLM logs all",
};

testPage("options, choices, defaults and status are those of the vLLM page", vllmPage, (page) => {
  const rows = [...page.matchAll(/^\| (-.*?) \| (.*?) ?\| (.*?) \| (.*) \|$/gm)];
  const seen = new Set<string>();
  for (const [, options, type, defaults, here] of rows) {
    const names = options.replace(" (deprecated)", "").split(", ");
    const long = names.filter((name) => name.startsWith("--"));
    const written = defaults.split(", ");
    long.forEach((option, i) => {
      const entry = find(option);
      const { argument } = entry;
      const expected = described(option) ??
        (written.length === long.length ? written[i] : defaults);
      const actual = described(option) === undefined ? plainDefault(entry) : argument.defaultText!;
      const isUnset = expected === "none" && argument.kind === "flag";
      assert.ok(sameValue(actual, isUnset ? "off" : expected), `${option}: ${actual}`);
      const listed = choicesOf(type);
      if (listed !== null) {
        const ours = argument.choices!.map(String).filter((c) => !(c in argument.extraChoices));
        assert.deepEqual(ours, listed, option);
      }
      assertStatus(entry, here);
      seen.add(entry.name);
    });
    // A short option is another name of the long one in its row.
    for (const short of names.filter((name) => !name.startsWith("--"))) {
      assert.equal(find(short), find(long[0]));
    }
  }
  assert.deepEqual([...seen].toSorted(), Object.keys(vllmArguments).toSorted());
});

function described(option: string): string | undefined {
  return describedDefaults[option];
}

/** The choices in the type column, or null when it names a type. */
function choicesOf(type: string): string[] | null {
  const words = type.split(", ");
  const types = ["str", "str...", "int", "float", "flag", "json", "GiB", "0..1", ""];
  return words.every((word) => types.includes(word) || word.startsWith("str:")) ? null : words;
}

function assertStatus({ name, argument: { status, laterChoices } }: Entry, here: string): void {
  if (here.startsWith("works")) assert.equal(status.kind, "works", name);
  if (here.startsWith("accepted")) assert.equal(status.kind, "accepted", name);
  // A part of it may work.
  const isLater = status.kind === "later" || laterChoices.length > 0;
  if (here.startsWith("refused until")) assert.ok(isLater, name);
  else if (here.startsWith("refused")) assert.equal(status.kind, "refused", name);
  if (here.startsWith("1 works")) {
    const works = name === "tensor-parallel-size"; // it does by now
    assert.equal(status.kind, works ? "works" : "later", name);
  }
  if (here.startsWith("0, else refused")) assert.equal(status.kind, "refused", name);
  if (here.includes("fp8 refused until")) assert.deepEqual(laterChoices, [], "it works");
}

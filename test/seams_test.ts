/**
 * A migration backend, a device and a lease store are each one directory and one line in a register. No other file
 * decides by an implementation's name: it asks the kind (`needsGroup`, `usesHostCores`, ...).
 */
import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";
import { leaseStores } from "../src/cluster/store/stores.ts";
import { devices } from "../src/executor/devices.ts";
import { migrationBackends } from "../src/kv/transfer/backends.ts";
import { importedSpecifiers } from "./imports.ts";

const root = join(import.meta.dirname!, "..");

/** A seam: its implementations, their directories and the register. */
interface Seam {
  readonly names: readonly string[];
  readonly directory: string;
  readonly register: string;
}

const seams: readonly Seam[] = [
  {
    names: migrationBackends.map(({ name }) => name),
    directory: "src/kv/transfer",
    register: "src/kv/transfer/backends.ts",
  },
  {
    names: devices.map(({ device }) => device),
    directory: "src/executor",
    register: "src/executor/devices.ts",
  },
  {
    // "file" is a word of its own in many places.
    names: leaseStores.map(({ scheme }) => scheme).filter((scheme) => scheme !== "file"),
    directory: "src/cluster/store",
    register: "src/cluster/store/stores.ts",
  },
];

/** What the arguments, their choices and their help say; they hold no decisions. */
const argumentTables = [
  "src/cli/arguments/llumnix.ts",
  "src/cli/arguments/program.ts",
  "src/cli/arguments/vllm.ts",
];

function* filesUnder(directory: string): Generator<string> {
  for (const entry of Deno.readDirSync(join(root, directory))) {
    const path = join(directory, entry.name);
    if (entry.isDirectory) yield* filesUnder(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

/** Places of a code that compare something with a name, or choose by it. */
function decisions(code: string, name: string): string[] {
  const word = `["'\`]${name}["'\`]`;
  const forms = [
    `[!=]==?\\s*${word}`,
    `${word}\\s*[!=]==?`,
    `\\bcase\\s+${word}`,
    `\\.(?:includes|has|startsWith|endsWith|get)\\(\\s*${word}`,
    `\\[[^\\]\\n]*${word}[^\\]\\n]*\\]\\.(?:includes|indexOf|some|find)\\(`,
  ];
  return code.match(new RegExp(forms.join("|"), "g")) ?? [];
}

Deno.test("a decision by name is found in every form", () => {
  const forms = [
    'backend === "gloo"',
    'backend !== "gloo"',
    '"gloo" === backend',
    'case "gloo":',
    '["gloo", "nccl"].includes(backend)',
    'ready.has("gloo")',
    "backend == 'gloo'",
  ];
  for (const form of forms) assert.equal(decisions(form, "gloo").length, 1, form);
  for (const form of ['name: "gloo"', 'open("gloo")', '["gloo"]', 'x === "gloo2"']) {
    assert.deepEqual(decisions(form, "gloo"), [], form);
  }
});

Deno.test("only an implementation's own directory and the register decide by its name", () => {
  const found: string[] = [];
  for (const { names, directory, register } of seams) {
    // Not ffi: it binds a library named nccl, and knows no backend.
    for (const file of ["src", "scripts"].flatMap((top) => [...filesUnder(top)])) {
      if (file === register || argumentTables.includes(file)) continue;
      const code = Deno.readTextFileSync(join(root, file));
      for (const name of names.filter((name) => !file.startsWith(`${directory}/${name}/`))) {
        for (const place of decisions(code, name)) found.push(`${file}: ${place}`);
      }
    }
  }
  assert.deepEqual(found, [], "ask the kind instead: see backend_kind.ts and executor_kind.ts");
});

Deno.test("every implementation has a directory with its kind, and one line in the register", () => {
  for (const { directory, register } of seams) {
    const kinds = [...filesUnder(directory)].filter((file) => file.endsWith("/kind.ts"));
    const registered = importsOf(register).filter((file) => file.endsWith("/kind.ts"));
    assert.deepEqual(registered.sort(), kinds.sort());
  }
  const available = migrationBackends.map(({ name }) => name);
  for (const name of available) assert.ok(exists(`src/kv/transfer/${name}/kind.ts`), name);
  for (const { device } of devices) assert.ok(exists(`src/executor/${device}/kind.ts`), device);
});

function exists(file: string): boolean {
  try {
    return Deno.statSync(join(root, file)).isFile;
  } catch {
    return false;
  }
}

/** The files whose code runs when a file is loaded, itself left out. */
function importsOf(file: string): string[] {
  return importedSpecifiers(Deno.readTextFileSync(join(root, file)))
    .filter(({ path, isTypeOnly }) => path.startsWith(".") && !isTypeOnly)
    .map(({ path }) => relative(root, join(root, dirname(file), path)));
}

/** All that is loaded with a file. */
function loadedWith(file: string): Set<string> {
  const loaded = new Set<string>([file]);
  for (const path of loaded) importsOf(path).forEach((imported) => loaded.add(imported));
  return loaded;
}

Deno.test("the command line and its help load the kinds, and no implementation", () => {
  const loaded = [...loadedWith("src/cli/role_commands.ts")];
  assert.ok(loaded.includes("src/executor/cpu/kind.ts"), "the kinds are loaded");
  const implementation =
    /^(src\/executor|src\/kv\/transfer)\/[^/]+\/(?!kind\.ts$)|^src\/kv\/pool\/|^ffi\//;
  assert.deepEqual(loaded.filter((file) => implementation.test(file)), []);
});

Deno.test("--version and the program's help load no command and no argument table", () => {
  const loaded = [...loadedWith("src/cli/main.ts")];
  assert.ok(loaded.includes("src/cli/commands.ts"), "the list of commands is loaded");
  assert.deepEqual(loaded.filter((file) => /^src\/(?!core\/|cli\/[^/]+$)/.test(file)), []);
});

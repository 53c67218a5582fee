/**
 * The arrows between the rooms, as agreed. One that is not here is a design
 * question, not a shortcut.
 */
import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dirname!, "..");

/** What lies at the top of the repository; hidden entries and build outputs aside. */
const topLevel = [
  "LICENSE",
  "README.md",
  "deno.json",
  "deno.lock",
  "ffi",
  "mod.ts",
  "scripts",
  "src",
  "test",
];
const outputs = /^(dist|coverage|.*\.log|\..*)$/;

const rooms = [
  "cli",
  "server",
  "frontend",
  "manager",
  "instance",
  "executor",
  "model",
  "kv",
  "bus",
  "core",
  "sim",
  "bench",
] as const;

/** What each room may import besides itself. `mod.ts` may import everything. */
const mayImport: Record<string, readonly string[]> = {
  // deno.json is the one place of the version.
  cli: [...rooms, "ffi", "deno.json"],
  server: ["frontend", "manager", "core"],
  frontend: ["core"],
  manager: ["core", "bus"],
  instance: ["core", "executor", "kv", "bus"],
  executor: ["core", "kv", "model", "ffi"],
  model: ["core"],
  kv: ["core", "ffi"],
  bus: ["core"],
  core: [],
  sim: [...rooms],
  bench: ["core"],
  ffi: [],
};

/** One import from one file to another, both relative to the root. */
interface Arrow {
  readonly from: string;
  readonly to: string;
}

/** Specifiers of static imports, re-exports and dynamic imports with a literal. */
function importedSpecifiers(code: string): string[] {
  const statements = /^(?:import|export)\b(?:[^;'"`]*?\bfrom)?\s*["']([^"']+)["']/gm;
  const dynamic = /^(?!\s*(?:\*|\/\/)).*?\bimport\(\s*["']([^"']+)["']/gm;
  return [...code.matchAll(statements), ...code.matchAll(dynamic)].map((match) => match[1]);
}

function* filesUnder(directory: string): Generator<string> {
  for (const entry of Deno.readDirSync(join(root, directory))) {
    const path = join(directory, entry.name);
    if (entry.isDirectory) yield* filesUnder(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

function* arrowsOf(file: string): Generator<Arrow> {
  for (const specifier of importedSpecifiers(Deno.readTextFileSync(join(root, file)))) {
    if (!specifier.startsWith(".")) continue;
    yield { from: file, to: relative(root, join(root, dirname(file), specifier)) };
  }
}

/** "src/core/log.ts" is in "core", "ffi/libc.ts" in "ffi", "mod.ts" in "mod.ts". */
function roomOf(path: string): string {
  const [top, second, ...rest] = path.split("/");
  return top === "src" && rest.length > 0 ? second : top;
}

const arrows = ["src", "ffi"].flatMap((top) => [...filesUnder(top)]).flatMap((
  f,
) => [...arrowsOf(f)]);

Deno.test("the import parser sees every form of import", () => {
  const code = [
    'import a from "./a.ts";',
    'import type {\n  B,\n} from "./b.ts";',
    'export * from "./c.ts";',
    'import "./d.ts";',
    'const e = await import("./e.ts");',
    'import f from "./f.so" with { type: "bytes" };',
    ' * import no from "./no.ts"',
    '// await import("./no.ts")',
    'export const text = "./no.ts";',
  ].join("\n");
  const found = importedSpecifiers(code).sort();
  assert.deepEqual(found, ["./a.ts", "./b.ts", "./c.ts", "./d.ts", "./e.ts", "./f.so"]);
});

Deno.test("every source file is in a room of the table", () => {
  const homeless = [...filesUnder("src")].filter((file) => !(roomOf(file) in mayImport));
  assert.deepEqual(homeless, [], `not in one of src/{${rooms.join(",")}}`);
});

Deno.test("imports follow the arrows of the table", () => {
  const wrong = arrows.filter(({ from, to }) => {
    const room = roomOf(from), target = roomOf(to);
    return room !== target && !mayImport[room]?.includes(target);
  });
  const report = wrong.map(({ from, to }) => {
    const room = roomOf(from);
    const allowed = mayImport[room]?.join(", ") || "no other room";
    return `  ${from} imports ${to}, but ${room} may import ${allowed}`;
  });
  if (report.length > 0) assert.fail(`arrows too many:\n${report.join("\n")}`);
});

Deno.test("no room imports itself through others", () => {
  const next = new Map<string, Map<string, Arrow>>();
  for (const arrow of arrows) {
    const from = roomOf(arrow.from), to = roomOf(arrow.to);
    if (to === from) continue;
    if (!next.has(from)) next.set(from, new Map());
    next.get(from)!.set(to, arrow);
  }
  const done = new Set<string>();
  const visit = (room: string, path: string[]) => {
    if (path.includes(room)) {
      const cycle = [...path.slice(path.indexOf(room)), room];
      const steps = cycle.slice(1).map((to, i) => next.get(cycle[i])!.get(to)!);
      assert.fail(
        `cycle ${cycle.join(" -> ")}:\n` +
          steps.map(({ from, to }) => `  ${from} imports ${to}`).join("\n"),
      );
    }
    if (done.has(room)) return;
    for (const to of next.get(room)?.keys() ?? []) visit(to, [...path, room]);
    done.add(room);
  };
  for (const room of next.keys()) visit(room, []);
});

Deno.test("the top level holds what was agreed", () => {
  const found = [...Deno.readDirSync(root)].map((entry) => entry.name)
    .filter((name) => !outputs.test(name));
  const strangers = found.filter((name) => !topLevel.includes(name));
  assert.deepEqual(strangers, [], "not agreed at the top level; move it into one of the rooms");
  const missing = topLevel.filter((name) => !found.includes(name));
  assert.deepEqual(missing, [], "missing at the top level");
});

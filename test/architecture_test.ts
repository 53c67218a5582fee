/**
 * The arrows between the rooms, as agreed. One that is not here is a design
 * question, not a shortcut.
 */
import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";
import { importedSpecifiers } from "./imports.ts";

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
  "roles",
  "server",
  "frontend",
  "client",
  "agent",
  "manager",
  "instance",
  "executor",
  "model",
  "kv",
  "bus",
  "core",
  "sim",
  "bench",
  "report",
  "metrics",
  "page",
  "workload",
  "cluster",
] as const;

/** What each room may import besides itself. `mod.ts` may import everything. */
const mayImport: Record<string, readonly string[]> = {
  cli: [...rooms, "ffi"],
  roles: [...rooms.filter((room) => room !== "cli"), "ffi"],
  // A second descriptor of a socket, and its queue, are in reach of the C library alone.
  server: ["frontend", "client", "core", "metrics", "page", "ffi"],
  frontend: ["core"],
  client: ["core", "bus"],
  agent: ["core", "bus", "instance", "manager"],
  manager: ["core", "bus"],
  instance: ["core", "bus", "executor", "kv"],
  executor: ["core", "kv", "model", "ffi"],
  model: ["core"],
  kv: ["core", "ffi"],
  // The other end of a Unix socket, and TCP_NODELAY of accepted TLS, are in reach of the C library alone.
  bus: ["core", "ffi"],
  // deno.json is the one place of the version.
  core: ["deno.json"],
  sim: [...rooms.filter((room) => room !== "cli" && room !== "roles"), "ffi"],
  bench: ["core", "report", "workload"],
  report: ["core"],
  metrics: ["core"],
  // Runs in browsers; to the server its files are texts.
  page: [],
  workload: ["core"],
  cluster: ["core", "bus"],
  ffi: [],
};

/** One import from one file to another, both relative to the root. */
interface Arrow {
  readonly from: string;
  readonly to: string;
  /** Nothing but types: no code of the other file runs. */
  readonly isTypeOnly: boolean;
}

function* filesUnder(directory: string): Generator<string> {
  for (const entry of Deno.readDirSync(join(root, directory))) {
    const path = join(directory, entry.name);
    if (entry.isDirectory) yield* filesUnder(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

function* arrowsOf(file: string): Generator<Arrow> {
  for (const { path, isTypeOnly } of importedSpecifiers(Deno.readTextFileSync(join(root, file)))) {
    if (!path.startsWith(".")) continue;
    yield { from: file, to: relative(root, join(root, dirname(file), path)), isTypeOnly };
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
    'import { type G, type H } from "./g.ts";',
    'import { i, type J } from "./i.ts";',
    'export type { K } from "./k.ts";',
    ' * import no from "./no.ts"',
    '// await import("./no.ts")',
    'export const text = "./no.ts";',
  ].join("\n");
  const found = importedSpecifiers(code);
  const paths = (isTypeOnly: boolean) =>
    found.filter((one) => one.isTypeOnly === isTypeOnly).map(({ path }) => path).sort();
  assert.deepEqual(paths(true), ["./b.ts", "./e.ts", "./g.ts", "./k.ts"]);
  assert.deepEqual(paths(false), ["./a.ts", "./c.ts", "./d.ts", "./f.so", "./i.ts"]);
});

Deno.test("every source file is in a room of the table", () => {
  const unplaced = [...filesUnder("src")].filter((file) => !(roomOf(file) in mayImport));
  assert.deepEqual(unplaced, [], `not in one of src/{${rooms.join(",")}}`);
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

/** A closed walk along arrows, as places that repeat the first at the end; null where there is none. */
function findCircle(arrows: readonly Arrow[], placeOf: (path: string) => string): string[] | null {
  const next = new Map<string, Set<string>>();
  for (const arrow of arrows) {
    const from = placeOf(arrow.from), to = placeOf(arrow.to);
    if (from === to) continue;
    if (!next.has(from)) next.set(from, new Set());
    next.get(from)!.add(to);
  }
  const done = new Set<string>();
  const visit = (place: string, path: readonly string[]): string[] | null => {
    if (path.includes(place)) return [...path.slice(path.indexOf(place)), place];
    if (done.has(place)) return null;
    for (const to of next.get(place) ?? []) {
      const circle = visit(to, [...path, place]);
      if (circle !== null) return circle;
    }
    done.add(place);
    return null;
  };
  for (const place of next.keys()) {
    const circle = visit(place, []);
    if (circle !== null) return circle;
  }
  return null;
}

Deno.test("a circle is found", () => {
  const arrow = (from: string, to: string) => ({ from, to, isTypeOnly: false });
  const found = findCircle([arrow("a", "b"), arrow("b", "c"), arrow("c", "b")], (path) => path);
  assert.deepEqual(found, ["b", "c", "b"]);
});

Deno.test("no room imports itself through others, not even types", () => {
  assert.equal(findCircle(arrows, roomOf), null);
});

Deno.test("no file imports values of itself through others", () => {
  const values = arrows.filter(({ isTypeOnly }) => !isTypeOnly);
  assert.equal(findCircle(values, (path) => path), null);
});

Deno.test("zod is imported as a namespace, which leaves what is not used out of the executable", () => {
  // `import { z }` takes its 64 languages along, in each process: 580 kB.
  const whole = [...filesUnder("src")].filter((path) =>
    /^import \{ z \} from "zod"/m.test(Deno.readTextFileSync(join(root, path)))
  );
  assert.deepEqual(whole, []);
});

Deno.test("the top level holds what was agreed", () => {
  const found = [...Deno.readDirSync(root)].map((entry) => entry.name)
    .filter((name) => !outputs.test(name));
  const strangers = found.filter((name) => !topLevel.includes(name));
  assert.deepEqual(strangers, [], "not agreed at the top level; move it into one of the rooms");
  const missing = topLevel.filter((name) => !found.includes(name));
  assert.deepEqual(missing, [], "missing at the top level");
});

/** Tiny shared libraries for tests: every function of a binding, with answers that the test chooses. */
import { functionsOf } from "../../scripts/abi/abi.ts";

const compiler = Deno.env.get("CC") ?? "cc";

/** Why no library can be compiled here; null if one can. */
export const noCompiler = await compilerProblem();

async function compilerProblem(): Promise<string | null> {
  try {
    const { success } = await new Deno.Command(compiler, { args: ["--version"] }).output();
    return success ? null : `${compiler} fails`;
  } catch {
    return `no ${compiler}`;
  }
}

/** A test that needs libraries of its own; skipped, with the reason in its name, without a compiler. */
export function fakeTest(name: string, run: (directory: string) => void | Promise<void>): void {
  Deno.test({
    name: noCompiler === null ? name : `${name} (skipped: ${noCompiler})`,
    ignore: noCompiler !== null,
    fn: async () => {
      const directory = await Deno.makeTempDir({ prefix: "fake-" });
      try {
        await run(directory);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

/**
 * Compiles C into a shared library at `path`.
 * @param soname by which the loader knows it once it is open. Without one, the bare sonames of other
 * tests in this process do not find it
 */
export async function compileLibrary(path: string, source: string, soname?: string): Promise<void> {
  const child = new Deno.Command(compiler, {
    args: [
      ...["-shared", "-fPIC", "-w", "-std=gnu11", "-x", "c", "-o", path, "-"],
      ...(soname === undefined ? [] : [`-Wl,-soname,${soname}`]),
    ],
    stdin: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(source));
  await writer.close();
  const { success, stderr } = await child.output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

/**
 * C source with every function of the tables: it returns 0, or the code that `fake_fail` has set for
 * its name. `own` defines some of them itself and may ask `answer(name)` for the code.
 */
export function fakeSource(tables: readonly Deno.ForeignLibraryInterface[], own: string): string {
  const names = Object.keys(functionsOf(...tables));
  const missing = names.filter((name) => !new RegExp(`\\b${name}\\(`).test(own));
  return [
    "#include <stddef.h>\n#include <stdint.h>\n#include <string.h>",
    "static char failing[64]; static int failure;",
    "void fake_fail(const char *name, int code) { strcpy(failing, name); failure = code; }",
    "static int answer(const char *name) { return strcmp(name, failing) == 0 ? failure : 0; }",
    own,
    ...missing.map((name) => `int ${name}() { return answer("${name}"); }`),
  ].join("\n");
}

/** Makes a function of a fake library return a code, and all others 0. */
export function failing(path: string): (name: string, code: number) => void {
  const control = { fake_fail: { parameters: ["buffer", "i32"], result: "void" } } as const;
  const { symbols } = Deno.dlopen(path, control);
  return (name, code) => symbols.fake_fail(new TextEncoder().encode(`${name}\0`), code);
}

/** A number that a fake library has recorded in a variable. */
export function recorded(path: string, name: string): bigint {
  const symbols = Deno.dlopen(path, { [name]: { type: "u64" } }).symbols;
  return symbols[name] as bigint;
}

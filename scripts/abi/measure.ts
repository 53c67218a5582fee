/** Asks a compiler what a header says: a C++ program prints sizes, offsets and values. */
import type { Abi, StructLayout } from "./abi.ts";

/** A header of a library, with what it needs of others. */
export interface Header {
  /** The file that declares everything: "cuda.h". */
  readonly file: string;
  /** Where it and the headers that it includes lie. */
  readonly directories: readonly string[];
  /** Lines before the include. */
  readonly prelude?: readonly string[];
}

/**
 * What the header says of the names in `wanted`. A name that it does not have is left out.
 * @throws {Error} with the compiler's text, if the program does not compile
 */
export async function measure(header: Header, wanted: Abi): Promise<Abi> {
  const text = await preprocessed(header);
  const has = (name: string) => new RegExp(`\\b${name}\\b`).test(text);
  const functions = Object.keys(wanted.functions).filter(has);
  const structs = Object.keys(wanted.structs).filter(has);
  // Macros are gone from the preprocessed text: the program itself asks for them.
  const constants = Object.keys(wanted.constants);
  const lines = [
    ...(header.prelude ?? []),
    `#include <${header.file}>`,
    "#include <cstddef>",
    "#include <cstdio>",
    "#include <type_traits>",
    "template <class T> void size() {",
    '  if constexpr (std::is_void_v<T>) printf("0");',
    '  else printf("%s%zu", std::is_class_v<T> || std::is_union_v<T> ? "s" :',
    '    std::is_floating_point_v<T> ? "f" : "", sizeof(T));',
    "}",
    // Types only: a use of the function itself would need the library.
    "template <class F> struct Signature;",
    "template <class R, class... A> struct Signature<R (*)(A...)> {",
    "  static void print(const char *name) {",
    '    printf("function %s ", name); size<R>(); printf("(");',
    '    bool first = true; ((first ? void() : (void)printf(","), first = false, size<A>()), ...);',
    '    printf(")\\n");',
    "  }",
    "};",
    "int main() {",
    ...functions.map((name) =>
      `#undef ${name}\n  Signature<decltype(&${name})>::print("${name}");`
    ),
    ...structs.flatMap((name) => [
      `  printf("size ${name} %zu\\n", sizeof(${name}));`,
      ...Object.keys(wanted.structs[name].fields).map((field) =>
        `  printf("offset ${name} ${field} %zu\\n", offsetof(${name}, ${field}));`
      ),
    ]),
    ...constants.map((name) => {
      const print = `  printf("constant ${name} %lld\\n", (long long)(${name}));`;
      return has(name) ? print : `#ifdef ${name}\n${print}\n#endif`;
    }),
    "}",
  ];
  return parse(await compileAndRun(lines.join("\n"), header));
}

function parse(output: string): Abi {
  const functions: Record<string, string> = {}, constants: Record<string, number> = {};
  const structs: Record<string, StructLayout & { fields: Record<string, number> }> = {};
  for (const line of output.trim().split("\n")) {
    const [kind, name, ...rest] = line.split(" ");
    if (kind === "function") functions[name] = rest[0];
    else if (kind === "constant") constants[name] = Number(rest[0]);
    else if (kind === "size") structs[name] = { size: Number(rest[0]), fields: {} };
    else structs[name].fields[rest[0]] = Number(rest[1]);
  }
  return { functions, structs, constants };
}

async function preprocessed(header: Header): Promise<string> {
  const source = [...(header.prelude ?? []), `#include <${header.file}>`].join("\n");
  return await compiler(["-E", "-x", "c++", "-"], header, source);
}

async function compileAndRun(source: string, header: Header): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "abi-" });
  try {
    await compiler(
      ["-std=c++17", "-w", "-x", "c++", "-o", `${directory}/abi`, "-"],
      header,
      source,
    );
    const { stdout } = await new Deno.Command(`${directory}/abi`).output();
    return new TextDecoder().decode(stdout);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function compiler(args: string[], header: Header, source: string): Promise<string> {
  const includes = header.directories.flatMap((directory) => ["-I", directory]);
  const command = new Deno.Command(Deno.env.get("CXX") ?? "g++", {
    args: [...includes, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const child = command.spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(source + "\n"));
  await writer.close();
  const { success, stdout, stderr } = await child.output();
  if (!success) throw new Error(new TextDecoder().decode(stderr).slice(0, 4000));
  return new TextDecoder().decode(stdout);
}

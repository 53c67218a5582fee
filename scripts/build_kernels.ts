/**
 * Builds the CPU kernels. Without arguments it builds the shared libraries for this machine's
 * architecture into `ffi/cpu_kernels/build/`, unless they are up to date. Without a compiler it says so
 * and succeeds, because the committed WASM build works everywhere. With `--wasm` it builds
 * `kernels.wasm`, for which it needs clang and lld of LLVM 19.
 */

const sources = new URL("../ffi/cpu_kernels/", import.meta.url);
const buildDirectory = new URL("build/", sources);
const path = (url: URL) => decodeURIComponent(url.pathname);

const commonFlags = [
  ...["-std=gnu11", "-O3", "-ffreestanding", "-ffp-contract=off", "-fno-math-errno"],
  ...["-fvisibility=hidden", "-nostdlib", "-Wall", "-Wextra"],
  ...["-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers"],
];

const avx2Flags = ["-mavx2", "-mfma", "-mf16c"];
const avx512Flags = [
  ...avx2Flags,
  ...["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"],
];

/** Compiler flags of each native kernel set, by architecture. */
const variants: Record<string, Record<string, string[]>> = {
  x86_64: {
    amx: [...avx512Flags, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    avx512bf16: [...avx512Flags, "-mavx512bf16"],
    avx512: avx512Flags,
    avx2: avx2Flags,
  },
  aarch64: { neon: [] },
};

const wasmFlags = [
  ...["--target=wasm32", "-msimd128", "-mrelaxed-simd", "-matomics", "-mbulk-memory"],
  ...["-fno-builtin", "-Wl,--no-entry", "-Wl,--shared-memory", "-Wl,--import-memory"],
  ...["-Wl,--max-memory=4294901760", "-Wl,-z,stack-size=1048576", "-Wl,--stack-first"],
  ...["-Wl,--export=__stack_pointer", "-Wl,--export=__heap_base", "-Wl,--strip-all"],
];

/** Hash over the kernel sources and the WASM flags, stored next to the WASM file. */
export async function wasmSourceHash(): Promise<string> {
  return await hash([...commonFlags, ...wasmFlags]);
}

async function hash(parts: readonly string[]): Promise<string> {
  const names = [...Deno.readDirSync(sources)].map((entry) => entry.name)
    .filter((name) => /\.[ch]$/.test(name)).sort();
  const texts = names.map((name) => name + "\0" + Deno.readTextFileSync(new URL(name, sources)));
  const all = new TextEncoder().encode([...parts, ...texts].join("\0"));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  return digest.toHex();
}

async function run(command: string, args: readonly string[]) {
  const child = new Deno.Command(command, { args: [...args], stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { success, stdout: text(stdout), stderr: text(stderr) };
}

interface Compiler {
  readonly command: string;
  readonly version: string;
}

/** The first compiler that runs; null if there is none. */
async function findCompiler(): Promise<Compiler | null> {
  const given = Deno.env.get("CC");
  for (const command of [...(given ? [given] : []), "clang-19", "clang", "gcc", "cc"]) {
    try {
      const { success, stdout } = await run(command, ["--version"]);
      if (success) return { command, version: stdout.split("\n")[0] };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return null;
}

function readText(url: URL): string | null {
  try {
    return Deno.readTextFileSync(url);
  } catch {
    return null;
  }
}

/**
 * Compiles one set and puts the library in place atomically. If the compiler fails (an old one may not
 * know the instructions), removes any library of older sources.
 * @returns the compiler's error, or null
 */
async function buildNative(compiler: string, set: string, flags: string[]): Promise<string | null> {
  const output = path(new URL(`kernels-${set}.so`, buildDirectory));
  const partial = `${output}.${Deno.pid}`;
  const source = path(new URL("kernels.c", sources));
  const shared = ["-shared", "-fPIC"];
  const result = await run(compiler, [...commonFlags, ...shared, ...flags, source, "-o", partial]);
  if (result.success) {
    await Deno.rename(partial, output);
    return null;
  }
  await Deno.remove(output).catch(() => {});
  return result.stderr.split("\n").find((line) => line.includes("error")) ??
    "the compiler gave no reason";
}

/** Builds all sets concurrently; returns a summary. */
async function buildSets(compiler: Compiler, sets: Record<string, string[]>): Promise<string> {
  await Deno.mkdir(buildDirectory, { recursive: true });
  const built: string[] = [], failed: string[] = [];
  await Promise.all(
    Object.entries(sets).map(async ([set, flags]) => {
      const complaint = await buildNative(compiler.command, set, flags);
      if (complaint === null) built.push(set);
      else failed.push(`${set} (${complaint})`);
    }),
  );
  const success = built.length > 0 ? built.sort().join(", ") : "no native set; WASM will be used";
  return failed.length > 0 ? `${success}; not built: ${failed.join(", ")}` : success;
}

async function buildNativeSets(): Promise<string> {
  const sets = Deno.build.os === "linux" ? variants[Deno.build.arch] : undefined;
  if (sets === undefined) {
    return `no native sets for ${Deno.build.os} on ${Deno.build.arch}; WASM will be used`;
  }
  const compiler = await findCompiler();
  if (compiler === null) return "no compiler found (CC, clang, gcc, cc); WASM will be used";
  const flags = Object.values(sets).flat();
  const key = await hash([...commonFlags, ...flags, compiler.command, compiler.version]);
  const stamp = new URL("stamp", buildDirectory);
  const [oldKey, outcome] = (readText(stamp) ?? "").split("\n");
  if (oldKey === key) return `${outcome} (up to date, ${compiler.version})`;

  const startMs = performance.now();
  const result = await buildSets(compiler, sets);
  await Deno.writeTextFile(stamp, `${key}\n${result}\n`);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  return `${result} (built in ${seconds} s, ${compiler.version})`;
}

async function buildWasm(): Promise<string> {
  const output = path(new URL("kernels.wasm", sources));
  const source = path(new URL("kernels.c", sources));
  const result = await run("clang-19", [...commonFlags, ...wasmFlags, source, "-o", output]);
  if (!result.success) {
    throw new Error(`clang-19 could not build the WASM kernels:\n${result.stderr}`);
  }
  await Deno.writeTextFile(new URL("kernels.wasm.hash", sources), await wasmSourceHash() + "\n");
  return `built kernels.wasm, ${Deno.statSync(output).size} bytes`;
}

if (import.meta.main) {
  const wasm = Deno.args.includes("--wasm");
  console.error(`kernels: ${await (wasm ? buildWasm() : buildNativeSets())}`);
}

/**
 * Makes the executable where `deno compile` is not available: `header.sh`, the program's files and the
 * compressed runtime in one file, each starting at a multiple of {@linkcode alignment}.
 */
import { dirname } from "node:path";
import { gzipSync } from "node:zlib";
import header from "./header.sh" with { type: "text" };
import { shortHash } from "./inputs.ts";

/** Block size of the `dd` commands in the header. */
const alignment = 4096;
/** Room for the header, which names each file. */
const headerBlocks = 4;

const runFlags = [
  "-A",
  "--no-prompt",
  "--no-config",
  "--no-lock",
  "--no-remote",
  "--no-npm",
  "--cached-only",
];

export interface SelfExtractOptions {
  /** Directory of the bundled program: its main module, and the files that it opens. */
  readonly appDirectory: string;
  /** Name of the main module in it. */
  readonly mainModule: string;
  /** The `deno` to embed. */
  readonly runtimePath: string;
  /** Directory that keeps the compressed runtime between builds. */
  readonly cacheDirectory: string;
  readonly version: string;
  /** `--unstable-*` flags of the program. */
  readonly unstableFlags: readonly string[];
  readonly outputPath: string;
}

/** Writes the self-extracting executable. */
export async function writeSelfExtracting(options: SelfExtractOptions): Promise<void> {
  const app = await readFiles(options.appDirectory, options.mainModule);
  const runtime = await Deno.readFile(options.runtimePath);
  const runtimeName = `deno-${Deno.version.deno}-${await shortHash(runtime)}`;
  const compressed = await compressRuntime(runtime, `${options.cacheDirectory}/${runtimeName}.gz`);

  let block = headerBlocks;
  const lines = app.map(({ name, bytes }) => {
    const blocks = Math.ceil(bytes.length / alignment);
    block += blocks;
    return `${name} ${block - blocks} ${blocks} ${bytes.length}`;
  });
  const script = fillIn(header, {
    APP: `llumnix-${options.version}-${await hashFiles(app)}`,
    MAIN: options.mainModule,
    DIRECTORIES: [...new Set(app.map(({ name }) => dirname(name)))].join(" "),
    APP_BYTES: String(app.reduce((sum, { bytes }) => sum + bytes.length, 0)),
    FILES: lines.join("\n"),
    RUNTIME: runtimeName,
    RUNTIME_SKIP: String(block),
    SYSTEM: await system(),
    NEEDS: neededLibrary(runtime),
    FLAGS: [...runFlags, ...options.unstableFlags].join(" "),
  });
  const headerBytes = headerBlocks * alignment;
  if (script.length > headerBytes) {
    throw new Error(`the header is ${script.length} bytes, more than ${headerBytes}`);
  }

  const file = await Deno.open(options.outputPath, { write: true, create: true, truncate: true });
  try {
    const output = file.writable.getWriter();
    await output.write(padded(new TextEncoder().encode(script), headerBytes));
    for (const { bytes } of app) {
      await output.write(padded(bytes, Math.ceil(bytes.length / alignment) * alignment));
    }
    await output.write(compressed);
    await output.close();
  } finally {
    await Deno.chmod(options.outputPath, 0o755);
  }
}

/** The kind of host that the executable is for, as `uname -sm` has it: "Linux x86_64". */
async function system(): Promise<string> {
  const { stdout } = await new Deno.Command("uname", { args: ["-sm"] }).output();
  return new TextDecoder().decode(stdout).trim();
}

/** The C library that the runtime is linked with: an ELF file has the names of the versions that it needs. */
function neededLibrary(runtime: Uint8Array): string {
  const text = new TextDecoder("latin1").decode(runtime);
  const minors = [...text.matchAll(/\0GLIBC_2\.(\d{1,3})(?=[.\0])/g)].map(([, minor]) =>
    Number(minor)
  );
  if (minors.length === 0) return "the system that it was built on, or a later one";
  return `glibc 2.${Math.max(...minors)} or later`;
}

interface AppFile {
  /** Path in the directory of the program. */
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** All files below a directory, `last` at the end. */
async function readFiles(directory: string, last: string): Promise<AppFile[]> {
  const names: string[] = [];
  const list = (below: string) => {
    for (const entry of Deno.readDirSync(`${directory}/${below}`)) {
      if (entry.isDirectory) list(`${below}${entry.name}/`);
      else names.push(`${below}${entry.name}`);
    }
  };
  list("");
  names.sort((a, b) => Number(a === last) - Number(b === last) || (a < b ? -1 : 1));
  return await Promise.all(
    names.map(async (name) => ({ name, bytes: await Deno.readFile(`${directory}/${name}`) })),
  );
}

async function hashFiles(files: readonly AppFile[]): Promise<string> {
  const lines = files.map(async ({ name, bytes }) => `${name} ${await shortHash(bytes)}`);
  return await shortHash(new TextEncoder().encode((await Promise.all(lines)).join("\n")));
}

/** Compresses the runtime, or reuses an earlier build's. Every target can unpack gzip. */
async function compressRuntime(runtime: Uint8Array, cachePath: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(cachePath);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const compressed = gzipSync(runtime, { level: 9 });
  const partial = `${cachePath}.${Deno.pid}`;
  await Deno.writeFile(partial, compressed);
  await Deno.rename(partial, cachePath);
  return compressed;
}

/** Pads a text with newlines, which neither a shell script nor JavaScript minds. */
function padded(bytes: Uint8Array, length: number): Uint8Array {
  const result = new Uint8Array(length).fill(0x0a);
  result.set(bytes);
  return result;
}

function fillIn(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/@([A-Z_]+)@/g, (_, name: string) => {
    if (!(name in values)) throw new Error(`header.sh has an unknown placeholder @${name}@`);
    return values[name];
  });
}

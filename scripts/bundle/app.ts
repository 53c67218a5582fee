/** Bundles the program: its modules, with their libraries, and the files that they open. */

import type { Build } from "../../src/core/version.ts";

/** The parts of deno.json that a build reads. */
export interface ProjectConfig {
  readonly version: string;
  readonly unstable: readonly string[];
}

/** The program's main module in the directory of a bundle. */
export const mainModule = "llumnix.js";

/**
 * Writes the program's modules into `directory`, and beside them the files that they open. Modules are
 * loaded when a command needs them, and files cost nothing until they are used. A file's path there is
 * the one by which a source names it, relative to its own module.
 * @param build shown by `--version`
 * @param workDirectory where the generated entry module may be written
 */
export async function bundleApp(
  root: string,
  build: Build,
  workDirectory: string,
  directory: string,
): Promise<void> {
  const entryPath = `${workDirectory}/${mainModule.replace(/\.js$/, ".ts")}`;
  await Deno.writeTextFile(entryPath, entryModule(root, build));
  const flags = ["--quiet", "--config", `${root}/deno.json`, "--code-splitting"];
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", ...flags, "--outdir", directory, entryPath],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error("deno bundle failed, see above");
  await requireLazily(directory);
  await importLazily(directory);
  await copyFiles(`${root}/ffi/cpu_kernels/build`, `${directory}/build`, /^kernels-\w+\.so$/);
  await copyFiles(`${root}/src/model/llumnix-story`, `${directory}/llumnix-story`, modelFiles);
}

/** What `deno bundle` puts into the chunk that all modules share. */
const eagerRequire =
  'import { createRequire as __deno_internal_createRequire } from "node:module";\n' +
  "var __require = __deno_internal_createRequire(import.meta.url);\n";
/** Libraries require only modules of Node's own. */
const lazyRequire = "var __require = (name) => process.getBuiltinModule(name);\n";

/** Importing `node:module` would load Node's compatibility layer in every process: 17 ms. */
async function requireLazily(directory: string): Promise<void> {
  let replaced = 0;
  for (const name of listNames(directory)) {
    if (!name.endsWith(".js")) continue;
    const code = await Deno.readTextFile(`${directory}/${name}`);
    if (!code.includes(eagerRequire)) continue;
    await Deno.writeTextFile(`${directory}/${name}`, code.replace(eagerRequire, lazyRequire));
    replaced++;
  }
  if (replaced !== 1) {
    throw new Error(
      `${replaced} chunks of deno bundle define __require as expected in scripts/bundle/app.ts; ` +
        "one should: adapt requireLazily to this version of Deno",
    );
  }
}

/**
 * Deno reads and analyses at start what a module imports by a literal, also where `import()` comes late:
 * that is the whole program, in every process and every worker. A computed name is read when it is used.
 */
async function importLazily(directory: string): Promise<void> {
  let replaced = 0;
  for (const name of listNames(directory)) {
    if (!name.endsWith(".js")) continue;
    const code = await Deno.readTextFile(`${directory}/${name}`);
    const lazy = code.replaceAll(/\bimport\(("\.\/[\w.-]+\.js")\)/g, "import(String($1))");
    if (lazy === code) continue;
    await Deno.writeTextFile(`${directory}/${name}`, lazy);
    replaced++;
  }
  if (replaced === 0) {
    throw new Error(
      "no chunk of deno bundle imports another as expected in scripts/bundle/app.ts: adapt " +
        "importLazily to this version of Deno",
    );
  }
}

const modelFiles = /^(model\.safetensors|(config|generation_config|tokenizer\w*)\.json)$/;

/** An entry module like mod.ts, without the library. */
function entryModule(root: string, build: Build): string {
  const url = (path: string) => JSON.stringify(new URL(`file://${encodeURI(path)}`).href);
  return [
    `import ${url(`${root}/scripts/bundle/environment.ts`)};`,
    `import { start } from ${url(`${root}/src/cli/start.ts`)};`,
    `import { setBuild } from ${url(`${root}/src/core/version.ts`)};`,
    `setBuild(${JSON.stringify(build)});`,
    `await start();`,
    ``,
  ].join("\n");
}

/** Copies the files of a directory whose names match; the directory need not exist. */
async function copyFiles(from: string, to: string, wanted: RegExp): Promise<void> {
  const names = [...listNames(from)].filter((name) => wanted.test(name));
  await Deno.mkdir(to);
  await Promise.all(names.map((name) => Deno.copyFile(`${from}/${name}`, `${to}/${name}`)));
}

function* listNames(directory: string): Generator<string> {
  try {
    for (const entry of Deno.readDirSync(directory)) yield entry.name;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

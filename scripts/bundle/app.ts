/** Bundles the program, with its libraries and assets, into one JavaScript file. */

import type { Build } from "../../src/core/version.ts";

/** The parts of deno.json that a build reads. */
export interface ProjectConfig {
  readonly version: string;
  readonly unstable: readonly string[];
}

/**
 * Bundles the program with the native kernels that were built into `outputPath`.
 * @param build shown by `--version`
 * @param entryPath where the generated entry module may be written
 */
export async function bundleApp(
  root: string,
  build: Build,
  entryPath: string,
  outputPath: string,
): Promise<void> {
  await Deno.writeTextFile(entryPath, entryModule(root, build));
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--config", `${root}/deno.json`, "--output", outputPath, entryPath],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error("deno bundle failed, see above");
}

/** An entry module like mod.ts that embeds the kernels, because an executable has no files beside it. */
function entryModule(root: string, build: Build): string {
  const directory = `${root}/ffi/cpu_kernels/build`;
  const kernelSets = [...listNames(directory)]
    .map((name) => /^kernels-(\w+)\.so$/.exec(name)?.[1])
    .filter((name) => name !== undefined)
    .sort();
  const url = (path: string) => JSON.stringify(new URL(`file://${encodeURI(path)}`).href);
  return [
    `import ${url(`${root}/scripts/bundle/environment.ts`)};`,
    `import { registerKernelImages } from ${url(`${root}/ffi/cpu_kernels/load.ts`)};`,
    `import { start } from ${url(`${root}/src/cli/start.ts`)};`,
    `import { setBuild } from ${url(`${root}/src/core/version.ts`)};`,
    ...kernelSets.map((set) =>
      `import ${set} from ${url(`${directory}/kernels-${set}.so`)} with { type: "bytes" };`
    ),
    `registerKernelImages({ ${kernelSets.join(", ")} });`,
    `setBuild(${JSON.stringify(build)});`,
    `await start();`,
    ``,
  ].join("\n");
}

function* listNames(directory: string): Generator<string> {
  try {
    for (const entry of Deno.readDirSync(directory)) yield entry.name;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

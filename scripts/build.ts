/**
 * Makes `dist/llumnix`, one executable file: by `deno compile` if denort is available, otherwise as a
 * self-extracting file. Does nothing if sources and tools are unchanged; `--force` builds anyway.
 */
import { bundleApp, mainModule, type ProjectConfig } from "./bundle/app.ts";
import { compileApp } from "./bundle/compile.ts";
import { hashInputs } from "./bundle/inputs.ts";
import { writeSelfExtracting } from "./bundle/self_extract.ts";
import { sourceVersion } from "./bundle/source_version.ts";
import type { Build } from "../src/core/version.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";

const root = decodeURIComponent(new URL("..", import.meta.url).pathname).replace(/\/$/, "");
const output = `${root}/dist/llumnix`;
const workDirectory = `${root}/dist/.build`;
const stampPath = `${workDirectory}/inputs`;

async function build(): Promise<void> {
  if (Deno.build.os === "windows") {
    throw new Error("the executable is for Linux and macOS; on Windows use `deno task serve`");
  }
  await Deno.mkdir(workDirectory, { recursive: true });
  const version = await sourceVersion(root);
  const inputs = await hashInputs(root, version.commit);
  if (!Deno.args.includes("--force") && await isBuiltFrom(inputs)) {
    return console.log(`dist/llumnix is up to date (${await sizeOf(output)})`);
  }
  const started = performance.now();
  const config: ProjectConfig = JSON.parse(await Deno.readTextFile(`${root}/deno.json`));
  // Concurrent builds share the entry module and the compressed runtime, which are the same for all.
  const scratch = await Deno.makeTempDir({ dir: workDirectory });
  const obstacle = await buildIn(scratch, config, version)
    .finally(() => Deno.remove(scratch, { recursive: true }));
  await Deno.writeTextFile(stampPath, inputs);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const form = obstacle === null ? "compiled" : "self-extracting";
  console.log(`dist/llumnix: ${await sizeOf(output)}, ${form}, made in ${seconds} s`);
}

/** Puts the executable in place; returns why it is not the compiled form, or null if it is. */
async function buildIn(
  scratch: string,
  config: ProjectConfig,
  version: Build,
): Promise<string | null> {
  const unstableFlags = config.unstable.map((feature) => `--unstable-${feature}`);
  const appDirectory = `${scratch}/app`;
  const outputPath = `${scratch}/llumnix`;
  await Deno.mkdir(appDirectory);
  await bundleApp(root, version, workDirectory, appDirectory);
  const obstacle = await compileApp(appDirectory, mainModule, outputPath, unstableFlags);
  if (obstacle !== null) {
    console.log(`cannot compile (${obstacle}); making a self-extracting executable`);
    await writeSelfExtracting({
      appDirectory,
      mainModule,
      runtimePath: Deno.execPath(),
      cacheDirectory: workDirectory,
      version: config.version,
      unstableFlags,
      outputPath,
    });
  }
  await Deno.rename(outputPath, output);
  return obstacle;
}

async function isBuiltFrom(inputs: string): Promise<boolean> {
  try {
    await Deno.stat(output);
    return await Deno.readTextFile(stampPath) === inputs;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function sizeOf(path: string): Promise<string> {
  return `${((await Deno.stat(path)).size / 1e6).toFixed(1)} MB`;
}

refuseUnknownArguments(["--force"]);
try {
  await build();
} catch (error) {
  console.error(`build: ${error instanceof Error ? error.message : error}`);
  Deno.exit(1);
}

/**
 * Benchmarks: `deno task bench [startup] [server] [manager] [engine] [migration]`, all by default.
 * Absolute figures hold for one machine at one moment; quote ratios.
 */
import { start } from "../src/cli/start.ts";
import { benchEngine } from "./bench/engine.ts";
import { benchManager } from "./bench/manager.ts";
import { benchMigration } from "./bench/migration.ts";
import { benchServer } from "./bench/server.ts";
import { benchStartup } from "./bench/startup.ts";

const benchmarks: Readonly<Record<string, () => Promise<void>>> = {
  startup: benchStartup,
  server: benchServer,
  manager: benchManager,
  engine: benchEngine,
  migration: () => benchMigration(),
};

async function main(names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (!(name in benchmarks)) {
      console.error(`no benchmark "${name}"; there are: ${Object.keys(benchmarks).join(", ")}`);
      Deno.exit(2);
    }
  }
  for (const [name, run] of Object.entries(benchmarks)) {
    if (names.length === 0 || names.includes(name)) await run();
  }
}

// The threads of the WASM kernels start this module again, as workers.
if ("WorkerGlobalScope" in globalThis) await start();
else await main(Deno.args);

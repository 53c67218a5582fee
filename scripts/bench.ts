/**
 * Benchmarks: `deno task bench [NAME...]`; `--help` lists them. Absolute figures hold for one machine at
 * one moment; quote ratios.
 */
import { start } from "../src/cli/start.ts";
import { benchHelp, chosenBenchmarks, describeMinutes } from "./bench/benchmarks.ts";

async function main(args: readonly string[]): Promise<void> {
  if (args.includes("--help") || args.includes("-h")) return console.log(benchHelp());
  const chosen = chosenOrExit(args);
  const minutes = chosen.reduce((sum, [, benchmark]) => sum + benchmark.minutes, 0);
  const names = chosen.map(([name]) => name).join(", ");
  console.log(`measuring ${names}: about ${describeMinutes(Math.ceil(minutes))}`);
  for (const [name, { about, minutes, run }] of chosen) {
    console.log(`\n${name}: ${about} (${describeMinutes(minutes)})`);
    await run();
  }
}

function chosenOrExit(names: readonly string[]): ReturnType<typeof chosenBenchmarks> {
  try {
    return chosenBenchmarks(names);
  } catch (error) {
    console.error(`${(error as Error).message}; see --help`);
    Deno.exit(2);
  }
}

// The threads of the WASM kernels start this module again, as workers.
if ("WorkerGlobalScope" in globalThis) await start();
else await main(Deno.args);

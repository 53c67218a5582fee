/**
 * Runs scenarios over a copy of `ffi/nccl/`: `run_scenarios.ts DEVICE FOLDER FIRST END`, with the
 * directory of the software device and a range of scenarios. Prints the number of each before it begins.
 * Ends at the first one that fails, with exit code 1 and the reason.
 */
import { pathToFileURL } from "node:url";
import { runScenario, scenarios } from "./scenarios.ts";
import { Libraries } from "./two_ends.ts";

const LIMIT_MS = 10_000;
const [device, folder, first, last] = Deno.args;
const load = (name: string) => import(pathToFileURL(`${folder}/${name}`).href);

const end = (reason: unknown) => {
  console.log(`REASON ${String(reason).split("\n")[0]}`);
  Deno.exit(1); // even if threads hang
};
addEventListener("unhandledrejection", (event) => end(event.reason));

const libraries = new Libraries(device, (await load("nccl.ts")).Nccl);
const module = await load("pair.ts");
for (let i = Number(first); i < Number(last); i++) {
  console.log(i);
  const limit = setTimeout(() => end(`no end after ${LIMIT_MS} ms`), LIMIT_MS);
  try {
    await runScenario(scenarios[i], module, libraries);
    const { misuses } = libraries.faults.counts();
    if (misuses > 0) end(`${misuses} calls that NCCL forbids`);
  } catch (error) {
    end(error);
  }
  clearTimeout(limit);
}
Deno.exit(0);

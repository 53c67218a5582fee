/**
 * Runs the fuzzer of NCCL pairs (`test/ffi/nccl/fuzz.ts`) over the software device:
 * `deno task nccl-fuzz [SEEDS] [FIRST]`. Prints a line a seed; exit code 1 at the first that fails.
 */
import * as module from "../ffi/nccl/pair.ts";
import { fuzz } from "../test/ffi/nccl/fuzz.ts";
import { Libraries } from "../test/ffi/nccl/two_ends.ts";
import { buildSoftwareDevice } from "./build_software_device.ts";

const [seeds, first] = [Number(Deno.args[0] ?? 20), Number(Deno.args[1] ?? 1)];
if (!Number.isSafeInteger(seeds) || seeds < 1 || !Number.isSafeInteger(first)) {
  console.error(`${Deno.args.join(" ")}: expected a number of seeds, and the first seed`);
  Deno.exit(2);
}
// Work runs in an order that a seed chooses, after 20 ms even if the host does not query it.
Deno.env.set("LLUMNIX_SOFTWARE_DEVICE", `order=random,seed=${first},progress=20`);
const built = await buildSoftwareDevice();
if ("missing" in built) throw new Error(`no software device: ${built.missing}`);
const libraries = new Libraries(built.directory);
for (let seed = first; seed < first + seeds; seed++) {
  try {
    const { moved, failed } = await fuzz(seed, module, libraries);
    const { misuses } = libraries.faults.counts();
    if (misuses > 0) throw new Error(`${misuses} calls that NCCL forbids`);
    console.log(`seed ${seed}: ${moved} moved, ${failed} failed`);
  } catch (error) {
    console.error(`seed ${seed}:`, error);
    Deno.exit(1);
  }
}
Deno.exit(0); // threads of the libraries may run

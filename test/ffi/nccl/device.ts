/** The software device for tests of NCCL: built on first use, or a reason why not. */
import { configure, directory } from "../software_device/device.ts";
import { Libraries } from "./two_ends.ts";

/** Work runs late, but runs after 20 ms even if the host does not query it, as on a device. */
const SETTINGS = "order=late,progress=20,fail-work=0,hang-work=0,busy=0,memory=1G";

let libraries: Libraries | null = null;

/** A test over the software device; skipped, with the reason in its name, where there is none. */
export function ncclTest(name: string, run: (libraries: Libraries) => Promise<void>): void {
  Deno.test({
    name: directory === null ? `${name} (skipped: no C++ compiler for the software device)` : name,
    ignore: directory === null,
    // The libraries' threads and the software device outlive a test.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      configure(SETTINGS);
      libraries ??= new Libraries(directory!);
      await run(libraries);
    },
  });
}

/**
 * Everything at once, on the real executable: what happens is drawn from a seed. `LLUMNIX_CHAOS=17`
 * replays seed 17, `LLUMNIX_CHAOS=100-199` runs a hundred.
 */
import type { StreamResult } from "./streams.ts";
import { quietStreams, runChaos } from "./chaos.ts";
import { chaosPlan } from "./chaos_plan.ts";

const [first, last] = (Deno.env.get("LLUMNIX_CHAOS") ?? "1-4").split("-").map(Number);

let quiet: Promise<readonly StreamResult[]> | null = null;

for (let seed = first; seed <= (last ?? first); seed++) {
  Deno.test(`streams are exact whatever happens to the instances (seed ${seed})`, async () => {
    await runChaos(chaosPlan(seed), await (quiet ??= quietStreams()));
  });
}

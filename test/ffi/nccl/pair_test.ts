/** Pairs do what they must, with every fault of the software NCCL. */
import * as module from "../../../ffi/nccl/pair.ts";
import { ncclTest } from "./device.ts";
import { runScenario, scenarios } from "./scenarios.ts";

for (const scenario of scenarios) {
  ncclTest(`NCCL pair: ${scenario.name}`, async (libraries) => {
    await runScenario(scenario, module, libraries);
  });
}

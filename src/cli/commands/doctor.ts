/** `llumnix doctor`: what this host has for serving, and how fast its paths are. */
import { blockBytes } from "../../kv/layout.ts";
import { resolveModel } from "../../model/resolve.ts";
import { engineDefaults } from "../arguments/tables.ts";
import type { DoctorOptions } from "../doctor/arguments.ts";
import { announced } from "../doctor/announced.ts";
import { examine, type ModelCost } from "../doctor/examine.ts";
import { thisHost } from "../doctor/host.ts";
import { reportText } from "../doctor/text.ts";

/**
 * Examines this host and prints the report.
 * @returns the exit code: 0 if `--device cpu` works here, else 1
 * @throws {ModelError} the model of `--model` is missing, damaged or not supported
 */
export async function runDoctor(options: DoctorOptions): Promise<number> {
  const report = await examine(thisHost, modelCost(options), announced);
  console.log(options.json ? JSON.stringify(report, null, 2) : reportText(report));
  return report.problems.length === 0 ? 0 : 1;
}

/** What a token of the model costs a transfer. */
function modelCost(options: DoctorOptions): ModelCost {
  const engine = { ...engineDefaults(), ...options };
  const { name, config, dtype } = resolveModel(engine);
  const { numLayers, numKvHeads, headDim } = config;
  const layout = { numLayers, numKvHeads, headDim, dtype, blockSize: 1 };
  return {
    model: name,
    dtype,
    bytesPerToken: blockBytes({ ...layout, format: "k-transposed" }),
    prefillTokensPerSecond: options.prefillTokensPerSecond,
  };
}

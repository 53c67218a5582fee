/** `llumnix doctor --self-test`: the self-test of every CUDA device, whatever an earlier one found. */
import { openVisibleCuda } from "../../kv/pool/cuda/cuda_device.ts";
import { cudaPaths } from "../../executor/cuda/paths.ts";
import { type Attempt, hasPassed, isPassed } from "../../executor/cuda/self_test/self_test.ts";
import { taskFor, tryInProcess } from "../../executor/cuda/self_test/self_test.ts";
import { resolveModel } from "../../model/resolve.ts";
import { engineDefaults } from "../arguments/tables.ts";
import type { DoctorOptions } from "./arguments.ts";

interface DeviceReport {
  readonly device: string;
  readonly computeCapability: string;
  readonly driverVersion: number;
  readonly model: string;
  readonly dtype: string;
  readonly attempts: readonly Attempt[];
}

/**
 * Prints what the kernels of each device compute for the model, with all fast paths, and if that is wrong,
 * without each of them and without all.
 * @returns the exit code: 0 if every device is right with all fast paths, else 1
 * @throws {UsageError} there is no device
 */
export async function runDoctorSelfTest(given: DoctorOptions): Promise<number> {
  const { selfTest: _, json, ...options } = given;
  const engine = { ...engineDefaults(), ...options };
  const model = resolveModel(engine);
  const cuda = openVisibleCuda("cuda");
  const reports: DeviceReport[] = [];
  for (let ordinal = 0; ordinal < cuda.deviceCount(); ordinal++) {
    const info = cuda.deviceInfo(ordinal);
    const { softwareDevice } = cuda.library;
    const driverVersion = cuda.driverVersion();
    const task = taskFor(model, { info, driverVersion, softwareDevice }, engine, []);
    const attempts = [await tryInProcess(task)];
    if (!hasPassed(attempts[0])) {
      for (const plain of [...cudaPaths.map((path) => [path]), [...cudaPaths]]) {
        attempts.push(await tryInProcess({ ...task, plain }));
      }
    }
    const report = {
      device: `cuda:${ordinal} ${softwareDevice ? "the software device" : info.name}`,
      computeCapability: info.computeCapability.join("."),
      ...{ driverVersion, model: model.name, dtype: model.dtype, attempts },
    };
    reports.push(report);
    if (!json) console.log(textOf(report));
  }
  if (json) console.log(JSON.stringify(reports, null, 2));
  return reports.every(({ attempts }) => attempts.length === 1) ? 0 : 1;
}

function textOf(report: DeviceReport): string {
  const { device, computeCapability, driverVersion, model, dtype, attempts } = report;
  const version = `${Math.floor(driverVersion / 1000)}.${driverVersion % 1000 / 10}`;
  const lines = [
    `${device}, compute capability ${computeCapability}, driver of CUDA ${version}: ` +
    `kernels for ${model} in ${dtype}`,
  ];
  for (const { plain, cases, fault, unable } of attempts) {
    const paths = plain.length === 0 ? "all fast paths" : `without ${plain.join(", ")}`;
    lines.push(`  ${paths}${fault === null ? "" : `: broke off, ${fault}`}`);
    if (unable !== undefined) lines.push(`    could not run: ${unable}`);
    for (const one of cases) {
      const error = one.error === Infinity ? "beyond measure" : one.error.toExponential(1);
      lines.push(
        `    ${isPassed(one) ? "right" : "WRONG"}  ${one.name}: error ${error}, limit ${one.limit}`,
      );
    }
  }
  return lines.join("\n");
}

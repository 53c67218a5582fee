/** The register of devices. `README.md` says how to add one. */
import type { Clock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import type { EngineOptions } from "../core/options.ts";
import { cpu } from "./cpu/kind.ts";
import { cuda } from "./cuda/kind.ts";
import type { Executor, ExecutorSpec, OnProgress } from "./executor.ts";
import type { ExecutorKind } from "./executor_kind.ts";
import { nullDevice } from "./null/kind.ts";
import { nullCuda } from "./null-cuda/kind.ts";
import { sim } from "./sim/kind.ts";

/** Every device, in the order in which `--device auto` looks for one. */
export const devices: readonly ExecutorKind[] = [
  cuda,
  cpu,
  sim,
  nullDevice,
  nullCuda,
];

/** For people: the devices that run on a latency profile. */
export const profileDevices = `--device ${
  devices.filter((kind) => kind.usesProfile).map((kind) => kind.device).join(" or ")
}`;

/** The kind of executor that `--device` stands for, if this program has it. */
export function findExecutorKind(device: EngineOptions["device"]): ExecutorKind | undefined {
  if (device === "auto") return devices.find((kind) => kind.isPresent?.());
  return devices.find((kind) => kind.device === device);
}

/**
 * The same for code that needs it.
 * @throws {UsageError} this program has no such device
 */
export function executorKind(device: EngineOptions["device"]): ExecutorKind {
  const found = findExecutorKind(device);
  if (!found) throw new UsageError(`--device ${device}: this program has no such device`);
  return found;
}

/** For people: why the device cannot have what is asked for in 8 bits; null: it can, or nothing is. */
export function fp8Problem(
  { device, quantization, kvCacheDtype }: Pick<
    EngineOptions,
    "device" | "quantization" | "kvCacheDtype"
  >,
): string | null {
  const found = findExecutorKind(device);
  if (found === undefined || found.hasFp8) return null;
  const asked = quantization === "fp8"
    ? "--quantization fp8"
    : kvCacheDtype === "fp8"
    ? "--kv-cache-dtype fp8"
    : null;
  if (asked === null) return null;
  const able = devices.filter(({ hasFp8 }) => hasFp8).map(({ device }) => device).join(" or ");
  return `${asked} needs --device ${able}, and the device is ${found.device}. Leave it out, or use ` +
    "another device.";
}

/** For people: why the device cannot have so many ranks; null: it can. */
export function ranksProblem(
  { device, tensorParallelSize }: Pick<EngineOptions, "device" | "tensorParallelSize">,
): string | null {
  const found = findExecutorKind(device);
  if (tensorParallelSize === 1 || found === undefined || found.hasRanks) return null;
  const able = devices.filter(({ hasRanks }) => hasRanks).map(({ device }) => device).join(" or ");
  return `--tensor-parallel-size ${tensorParallelSize} needs --device ${able}, and the device is ` +
    `${found.device}. Leave it out, or use another device.`;
}

/** Loads an executor in this thread: see {@linkcode ExecutorKind.load}. */
export async function loadExecutor(
  spec: ExecutorSpec,
  onProgress: OnProgress,
  clock?: Clock,
): Promise<Executor> {
  const options = { ...spec.options, device: spec.device };
  const problem = fp8Problem(options) ?? ranksProblem(options);
  if (problem !== null) throw new UsageError(problem);
  return await executorKind(spec.device).load(spec, onProgress, clock);
}

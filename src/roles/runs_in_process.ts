import type { EngineOptions, LifecycleOptions } from "../core/options.ts";
import { executorKind } from "../executor/devices.ts";

/** Whether instances run within the manager's process. */
export function runsInProcess(
  options: Pick<EngineOptions & LifecycleOptions, "device" | "instanceIsolation">,
): boolean {
  const { device, instanceIsolation } = options;
  if (instanceIsolation !== "auto") return instanceIsolation === "none";
  return executorKind(device).sharesProcess === "by default";
}

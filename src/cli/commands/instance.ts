import { logger, setupLogging } from "../../core/log.ts";
import { runInstance as run } from "../../instance/instance_main.ts";
import type { InstanceOptions } from "../arguments/tables.ts";

/**
 * Runs one instance until its manager stops it.
 * @returns the exit code
 */
export function runInstance(options: InstanceOptions): Promise<number> {
  const { instanceId, managerAddress, hostShare, logLevel, logFilename } = options;
  setupLogging({ level: logLevel, filename: logFilename, role: instanceId });
  const log = logger("instance");
  return run({ options, migration: options, instanceId, managerAddress, hostShare, log });
}

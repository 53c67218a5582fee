import type { LogFields } from "../core/log.ts";
import type { InstanceRegistration } from "../core/protocol/membership.ts";

/** The fields of a log line about a serving instance. */
export function servingFields(registration: InstanceRegistration): LogFields {
  const { model, executor, dtype, totalBlocks, blockSize } = registration;
  return { model, executor, dtype, kvBlocks: totalBlocks, kvTokens: totalBlocks * blockSize };
}

import type { LogFields } from "../core/log.ts";
import type { InstanceRegistration } from "../core/protocol/membership.ts";

/** What the log says of an instance that serves. */
export function servingFields(registration: InstanceRegistration): LogFields {
  const { model, executor, dtype, totalBlocks, blockSize } = registration;
  return { model, executor, dtype, kvBlocks: totalBlocks, kvTokens: totalBlocks * blockSize };
}

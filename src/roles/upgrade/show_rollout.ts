import type { Log } from "../../core/log.ts";
import type { Rollout } from "../../core/protocol/upgrade.ts";
import { fullVersion } from "../../core/version.ts";

/** Logs how the replacement of instances has ended. */
export function showRollout({ total, replaced, error }: Rollout, log: Log): void {
  if (total === 0) return;
  if (error === null) log.info(`replaced all instances (${total}): version ${fullVersion()}`);
  else log.error(`replaced ${replaced} of ${total} instances; the others serve on: ${error}`);
}

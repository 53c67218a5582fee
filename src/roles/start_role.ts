/** How the process of a role starts, whichever it is. */
import { type Log, logger } from "../core/log.ts";
import { exitOnDefects } from "./defects.ts";
import { type RoleService, runRole } from "./run_role.ts";
import { startLogging } from "./start_logging.ts";
import { asSuccessor, type Predecessor } from "./upgrade/successor.ts";

/** What a role is made with. */
export interface RoleStart {
  readonly log: Log;
  /** Where this process and its instances log in addition to stderr; null: nowhere. */
  readonly logFile: string | null;
  /** The process that this one replaces; null: none. */
  readonly predecessor: Predecessor | null;
}

/**
 * Runs a role until it is told to stop: in the place of a predecessor if there is one, with its log, and ended by
 * the first defect.
 * @param names `role` is on every line of the log, `log` is the name of its logger
 * @param serviceOf makes the role; what it throws ends the start
 * @returns the exit code of {@linkcode runRole}
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export function startRole(
  options: Parameters<typeof startLogging>[0] & { readonly shutdownTimeout: number },
  names: { readonly role: string; readonly log: string },
  serviceOf: (start: RoleStart) => RoleService | Promise<RoleService>,
): Promise<number> {
  return asSuccessor(async (predecessor) => {
    const logFile = startLogging(options, names.role, predecessor !== null);
    const log = logger(names.log);
    const exitOnDefect = exitOnDefects(log);
    return await runRole({
      service: await serviceOf({ log, logFile, predecessor }),
      predecessor,
      shutdownTimeoutMs: options.shutdownTimeout * 1000,
      log,
      exitOnDefect,
    });
  });
}

import { writesToJournal } from "../core/journal.ts";
import { setupLogging } from "../core/log.ts";
import type { LoggingOptions } from "../core/options.ts";

/** `--log-filename`, unless it is given. */
export const DEFAULT_LOG_FILENAME = "server.log";

/**
 * Starts the log of a role as its options want it.
 * @param role on every line
 * @param isShared the file belongs to the process that started this one
 * @returns the file that is written; null for stderr alone
 */
export function startLogging(
  options: Pick<LoggingOptions, "logLevel" | "logFormat" | "logMaxBytes" | "logBackups"> & {
    readonly logFilename: string | null;
  },
  role: string,
  isShared = false,
): string | null {
  return setupLogging({
    level: options.logLevel,
    format: options.logFormat,
    // Under systemd the journal has the log, and the working directory may be the root of the file system.
    filename: options.logFilename === DEFAULT_LOG_FILENAME && writesToJournal()
      ? null
      : options.logFilename,
    maxBytes: options.logMaxBytes,
    backups: options.logBackups,
    role,
    isShared,
  });
}

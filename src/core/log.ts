/**
 * Logs of a process: one line a record, to stderr and to a file.
 *
 * ```text
 * 2026-01-31T12:00:00.000Z INFO instance-0/engine: model loaded layers=30 dtype=bfloat16
 * ```
 *
 * With `--log-format json` a record is an object. To the journal of systemd, the line has its priority in front instead of time and level.
 */
import { BaseHandler, getLogger, type Logger, type LogRecord, setup } from "@std/log";
import { writesToJournal } from "./journal.ts";
import { type Claim, claimLogFile } from "./log_claim.ts";
import { LogFile } from "./log_file.ts";
import { forJournal, formats, type LogFormat } from "./log_format.ts";

export type LogLevel = "debug" | "info" | "warning" | "error";

/** Facts of a record, printed as `key=value`; undefined ones are left out. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Writes records of one component. Costs next to nothing where the level is off. */
export interface Log {
  /** @param fields may be a function, which is only called when the level is on */
  debug(message: string, fields?: LogFields | (() => LogFields)): void;
  info(message: string, fields?: LogFields | (() => LogFields)): void;
  warn(message: string, fields?: LogFields | (() => LogFields)): void;
  error(message: string, fields?: LogFields | (() => LogFields)): void;
}

export interface LogOptions {
  readonly level: LogLevel;
  /** Appended to; null for stderr alone. */
  readonly filename: string | null;
  /** How a record is written: as text for people, or as JSON. Default text. */
  readonly format?: LogFormat;
  /** What this process is, on every line: "server", "instance-0". */
  readonly role?: string;
  /** Size at which the file is renamed to `filename.1`; 0, the default: never. */
  readonly maxBytes?: number;
  /** Renamed files that are kept; default 1. */
  readonly backups?: number;
  /** The file is that of the process that started this one, which claims and rotates it. */
  readonly isShared?: boolean;
}

const stdLevels = {
  debug: "DEBUG",
  info: "INFO",
  warning: "WARN",
  error: "ERROR",
} as const;
const loggerName = "llumnix";

/** The log file of this process; null for none. */
let file: LogFile | null = null;

/**
 * Starts logging in this process, or starts it anew. Before, records go nowhere. A log file that
 * cannot be written costs one warning, never the service; one that another process has claimed is left
 * to that process.
 * @returns the file that is written, null when there is none
 */
export function setupLogging(options: LogOptions): string | null {
  const { level, filename, role, format = "text" } = options;
  setup({}); // closes the file before, which this process may claim again
  const write = formats[format];
  const formatter = onceARecord((record) => write(record, role));
  const stdLevel = stdLevels[level];
  const claim = filename ? claimOf(filename, options) : null;
  file = claim && openLogFile(claim, formatter, options);
  setup({
    handlers: {
      stderr: new StderrHandler(stdLevel, {
        formatter: writesToJournal() ? (record) => forJournal(record, role, format) : formatter,
      }),
      ...(file && { file }),
    },
    loggers: {
      [loggerName]: {
        level: stdLevel,
        handlers: file ? ["stderr", "file"] : ["stderr"],
      },
    },
  });
  if (claim === null || file === null) return null;
  if (file.failure !== null) {
    warnOf(file.failure, claim.filename); // its own warning found no logger yet
    return null;
  }
  if (claim.filename !== filename) {
    log.warn(`another process logs to ${filename}; this one logs to ${claim.filename}`);
  }
  return claim.filename;
}

/** Opens the log file anew, such as after it was renamed. */
export function reopenLogFile(): void {
  file?.reopen();
}

function claimOf(filename: string, { isShared }: LogOptions): Claim {
  return isShared ? { filename, lock: null } : claimLogFile(filename);
}

function openLogFile(
  { filename, lock }: Claim,
  formatter: (record: LogRecord) => string,
  { level, maxBytes = 0, backups = 1, isShared = false }: LogOptions,
): LogFile {
  return new LogFile(stdLevels[level], {
    filename,
    formatter,
    maxBytes: isShared || maxBytes === 0 ? null : maxBytes,
    backups,
    lock,
    onFailure: (error) => warnOf(error, filename),
  });
}

/** The log of a component, such as "scheduler"; may be made before logging is set up. */
export function logger(component: string): Log {
  const write = (level: "debug" | "info" | "warn" | "error") => {
    return (message: string, fields?: LogFields | (() => LogFields)) => {
      const std: Logger = getLogger(loggerName);
      if (std.handlers.length > 0) std[level](message, component, fields);
    };
  };
  return {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
  };
}

const log = logger("log");

function warnOf(failure: Error, filename: string): void {
  log.warn("cannot write the log file; logging to stderr alone", {
    filename,
    cause: failure,
  });
}

class StderrHandler extends BaseHandler {
  readonly #encoder = new TextEncoder();

  override log(line: string): void {
    const bytes = this.#encoder.encode(line + "\n");
    try {
      for (let written = 0; written < bytes.length;) {
        written += Deno.stderr.writeSync(bytes.subarray(written));
      }
    } catch {
      // Whoever read stderr is gone; the service goes on.
    }
  }
}

/** Every handler wants the same line. */
function onceARecord(format: (record: LogRecord) => string): (record: LogRecord) => string {
  let last: LogRecord | null = null;
  let line = "";
  return (record) => {
    if (record !== last) {
      line = format(record);
      last = record;
    }
    return line;
  };
}

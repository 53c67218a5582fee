/**
 * Logs of a process: one line a record, to stderr and to a file.
 *
 * ```text
 * 2026-01-31T12:00:00.000Z INFO instance-0/engine: model loaded layers=30 dtype=bfloat16
 * ```
 *
 * To the journal of systemd, the line has its priority in front instead of time and level.
 */
import { BaseHandler, getLogger, type Logger, type LogRecord, setup } from "@std/log";
import { LlumnixError } from "./errors.ts";
import { type JournalLevel, journalPrefix, writesToJournal } from "./journal.ts";
import { type Claim, claimLogFile } from "./log_claim.ts";
import { LogFile } from "./log_file.ts";

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
  const { level, filename, role } = options;
  setup({}); // closes the file before, which this process may claim again
  const formatter = onceARecord((record) => formatRecord(record, role));
  const stdLevel = stdLevels[level];
  const claim = filename ? claimOf(filename, options) : null;
  file = claim && openLogFile(claim, formatter, options);
  setup({
    handlers: {
      stderr: new StderrHandler(stdLevel, {
        formatter: writesToJournal() ? (record) => formatForJournal(record, role) : formatter,
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

function formatRecord(record: LogRecord, role: string | undefined): string {
  return `${record.datetime.toISOString()} ${record.levelName} ${formatContent(record, role)}`;
}

function formatForJournal(record: LogRecord, role: string | undefined): string {
  const level = record.levelName.toLowerCase() as JournalLevel;
  return journalPrefix(level) + formatContent(record, role);
}

/** Everything but time and level. */
function formatContent(record: LogRecord, role: string | undefined): string {
  const [component, given] = record.args as [
    string,
    LogFields | (() => LogFields) | undefined,
  ];
  const source = role ? `${role}/${component}` : component;
  let line = `${source}: ${oneLine(record.msg)}`;
  const fields = typeof given === "function" ? given() : given;
  for (const [key, value] of Object.entries(fields ?? {})) {
    if (value !== undefined) line += ` ${key}=${formatValue(value)}`;
  }
  return line;
}

function formatValue(value: unknown): string {
  if (value instanceof Error) value = describeError(value);
  if (typeof value === "object" && value !== null) return oneLine(toJson(value));
  const text = String(value);
  return /^[^\s"=]+$/u.test(text) && !unsafe.test(text) ? text : oneLine(JSON.stringify(text));
}

/** Errors of this program and of the system show their message; any other is a bug and shows its stack. */
function describeError(error: Error): string {
  const isExpected = error instanceof LlumnixError || error.name in Deno.errors;
  return isExpected ? error.message : error.stack ?? error.message;
}

function toJson(value: object): string {
  try {
    return JSON.stringify(value, (_, item) => typeof item === "bigint" ? String(item) : item);
  } catch {
    return Deno.inspect(value);
  }
}

/**
 * Characters that could forge a record or change how a terminal shows it: controls (C0 and C1), bidirectional
 * controls, and the line separators U+2028 and U+2029.
 */
const unsafe = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u;
const everyUnsafe = new RegExp(unsafe, "gu");

/** The text with all such characters escaped. */
function oneLine(text: string): string {
  return text.replace(
    everyUnsafe,
    (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}

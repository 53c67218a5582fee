import type { BaseHandler } from "./base_handler.ts";
import type { LevelName } from "./levels.ts";
import { Logger } from "./logger.ts";

export interface LoggerConfig {
  level?: LevelName;
  /** Names of handlers of the same configuration. */
  handlers?: string[];
}

export interface LogConfig {
  handlers?: { [name: string]: BaseHandler };
  loggers?: { [name: string]: LoggerConfig };
}

const handlers = new Map<string, BaseHandler>();
const loggers = new Map<string, Logger>();

/** Replaces all handlers and loggers; the handlers before are destroyed. */
export function setup(config: LogConfig): void {
  for (const handler of handlers.values()) handler.destroy();
  handlers.clear();
  loggers.clear();
  for (const [name, handler] of Object.entries(config.handlers ?? {})) {
    handler.setup();
    handlers.set(name, handler);
  }
  for (
    const [name, { level, handlers: names = [] }] of Object.entries(
      config.loggers ?? {},
    )
  ) {
    const own = names.map((handler) => handlers.get(handler)).filter((
      handler,
    ) => !!handler);
    loggers.set(name, new Logger(name, level ?? "INFO", { handlers: own }));
  }
}

/** The logger of that name; one without handlers when none was set up. */
export function getLogger(name = "default"): Logger {
  let logger = loggers.get(name);
  if (!logger) {
    logger = new Logger(name, "NOTSET", { handlers: [] });
    loggers.set(name, logger);
  }
  return logger;
}

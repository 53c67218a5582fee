import type { ServerOptions } from "../core/options.ts";
import type { TextService } from "../frontend/service.ts";
import type { Admission } from "./admission.ts";
import type { Generation } from "./generation.ts";

/** Where the server's lines go; a `Logger` of @std/log is one. */
export interface ServerLog {
  info(message: string): unknown;
  warn(message: string): unknown;
  error(message: string): unknown;
}

/** What routes need besides the exchange. */
export interface ServerContext {
  readonly service: TextService;
  readonly options: ServerOptions;
  readonly version: string;
  readonly log: ServerLog;
  readonly admission: Admission;
  /** Generations in work; ended by force at the deadline of a shutdown. */
  readonly generations: Set<Generation>;
}

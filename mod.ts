/**
 * Llumnix as one executable: many LLM instances that serve as one.
 *
 * Run directly, this module is the program (`llumnix --help`). Imported, it is the library below.
 * @module
 */
import { start } from "./src/cli/start.ts";

export * from "./src/core/errors.ts";
export type * from "./src/core/messages.ts";
export type * from "./src/core/options.ts";

if (import.meta.main) await start();

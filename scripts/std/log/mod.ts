/**
 * The part of `@std/log` that this project uses, with the names and signatures of the real package:
 * remove it from `links` in deno.json to use that one.
 * @module
 */
export * from "./base_handler.ts";
export * from "./file_handler.ts";
export * from "./levels.ts";
export * from "./logger.ts";
export * from "./rotating_file_handler.ts";
export * from "./setup.ts";

/** What a command of the program is. */
import type { Group } from "./arguments/tables.ts";

/** A command, as the module that implements it exports it. */
export interface Command {
  /** Its arguments; absent: it reads its few words itself. */
  readonly groups?: readonly Group[];
  /** How it is called, if not by `llumnix NAME [options]`: what follows the name, in one way or several. */
  readonly usages?: readonly string[];
  /**
   * Runs the command.
   * @param argv the words after the command's name
   * @returns the exit code
   * @throws {LlumnixError} for the user to read, without a stack
   */
  run(argv: readonly string[]): Promise<number>;
  /** What help says after the arguments, for a terminal of `width` columns. */
  notes?(width: number): Promise<string>;
}

import { UsageError } from "../core/errors.ts";

/** An option that the command does not have; another command may have it. */
export class UnknownOptionError extends UsageError {
  /** @param option with dashes, and without underscores */
  constructor(readonly option: string, message: string) {
    super(message);
  }
}

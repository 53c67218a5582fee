import { UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";

const ANYONE_ELSE = 0o077;
const MAX_FILE_BYTES = 4_096;

/**
 * Reads a file with a secret.
 * @param option that names the file, for messages
 * @throws {UsageError} it cannot be read, is too large, or other users can read it
 */
export function readSecretFile(path: string, option: string): string {
  try {
    const { mode, uid, size } = Deno.statSync(path);
    if (mode !== null && (mode & ANYONE_ELSE) !== 0) {
      throw new UsageError(
        `${option} ${path} can be read by other users (mode ${(mode & 0o777).toString(8)}): ` +
          `close it (chmod 600 ${path}), and replace what is in it if they may have read it`,
      );
    }
    if (uid !== null && uid !== 0 && uid !== Deno.uid()) {
      throw new UsageError(`${option} ${path} belongs to another user (uid ${uid})`);
    }
    if (size > MAX_FILE_BYTES) {
      throw new UsageError(
        `${option} ${path} has ${size} bytes: expected at most ${MAX_FILE_BYTES}`,
      );
    }
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${option} ${path}: ${fileProblem(error)}`);
  }
}

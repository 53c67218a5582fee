import { API_KEY_VARIABLE } from "../core/environment.ts";
import { UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";
import { logger } from "../core/log.ts";
import type { ServerOptions } from "../core/options.ts";

const log = logger("http");

/**
 * The keys that clients need one of: those of `--api-key`, of the file, and of the environment.
 * @returns none if every client may use the service
 * @throws {UsageError} a key that cannot be sent, or a file that cannot be read or has no key
 */
export function apiKeys(
  { apiKey, apiKeyFile }: Pick<ServerOptions, "apiKey" | "apiKeyFile">,
): string[] {
  const variable = Deno.env.get(API_KEY_VARIABLE);
  const keys = [
    ...(apiKey ?? []).map((key) => checked(key, "--api-key")),
    ...(apiKeyFile === null ? [] : readKeys(apiKeyFile)),
    ...(variable === undefined ? [] : [checked(variable, API_KEY_VARIABLE)]),
  ];
  return [...new Set(keys)];
}

function readKeys(path: string): string[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (cause) {
    throw new UsageError(`--api-key-file ${path} cannot be read: ${fileProblem(cause)}`, {
      cause,
    });
  }
  const { mode } = Deno.statSync(path);
  if (mode !== null && (mode & 0o077) !== 0) {
    log.warn("other users of this host may read the file of API keys; set its mode to 0600", {
      path,
    });
  }
  const keys = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (keys.length === 0) {
    throw new UsageError(`--api-key-file ${path} has no key: write one a line`);
  }
  return keys.map((key) => checked(key, `--api-key-file ${path}`));
}

function checked(key: string, source: string): string {
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw new UsageError(
    `${source}: a key must consist of visible ASCII characters, at least one: it is sent as a header`,
  );
}

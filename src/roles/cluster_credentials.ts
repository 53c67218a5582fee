/** How this process enters the lease store of `--cluster`. */
import { UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";
import type { StoreCredentials } from "../cluster/store/store_kind.ts";
import { readSecretFile } from "./secret_file.ts";

const OPTION = "--cluster-credentials";
/** Before the names of the file's entries: environment variables with the same meaning. */
const VARIABLE_PREFIX = "LLUMNIX_CLUSTER_";
const MAX_AUTHORITY_BYTES = 1 << 20;

/** The entries of the file. */
const entries: Readonly<Record<string, keyof StoreCredentials>> = {
  USER: "user",
  PASSWORD: "password",
  TOKEN: "token",
  NKEY_SEED: "nkeySeed",
  CA_FILE: "authority",
};

type Environment = { get(name: string): string | undefined };

/**
 * The credentials in effect: those of the file, else those of the environment, else none.
 * @param path `--cluster-credentials`: lines `NAME=VALUE` with the names of {@linkcode entries}
 * @throws {UsageError} the file is not there, has other lines, or can be read by other users
 */
export function clusterCredentials(
  path: string | null,
  env: Environment = Deno.env,
): StoreCredentials {
  const written = path === null ? ofEnvironment(env) : parse(readSecretFile(path, OPTION), path);
  const { authority } = written;
  return authority === undefined ? written : { ...written, authority: readAuthority(authority) };
}

function ofEnvironment(env: Environment): StoreCredentials {
  const found = Object.entries(entries).flatMap(([name, field]) => {
    const value = env.get(VARIABLE_PREFIX + name);
    return value ? [[field, value]] : [];
  });
  return Object.fromEntries(found);
}

/** Errors name the line by its number: it may hold a secret. */
function parse(text: string, path: string): StoreCredentials {
  const credentials: Record<string, string> = {};
  for (const [index, line] of text.split("\n").entries()) {
    if (/^\s*(?:#|$)/.test(line)) continue;
    const equals = line.indexOf("=");
    const name = line.slice(0, Math.max(0, equals)).trim(), value = line.slice(equals + 1).trim();
    if (!Object.hasOwn(entries, name) || value === "") {
      throw new UsageError(
        `${OPTION} ${path}, line ${index + 1}: expected NAME=VALUE, with one of the names ` +
          Object.keys(entries).join(", "),
      );
    }
    credentials[entries[name]] = value;
  }
  return credentials;
}

/** @throws {UsageError} the file cannot be read, or is too large for certificates */
function readAuthority(path: string): string {
  try {
    if (Deno.statSync(path).size <= MAX_AUTHORITY_BYTES) return Deno.readTextFileSync(path);
  } catch (error) {
    throw new UsageError(`certificates of the lease store (CA_FILE): ${fileProblem(error)}`);
  }
  throw new UsageError(`certificates of the lease store (CA_FILE): ${path} is over 1 MiB`);
}

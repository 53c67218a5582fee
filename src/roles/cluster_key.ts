/** The key that processes have in common which connect over TCP. */
import type { ClusterKey } from "../bus/tcp.ts";
import { UsageError } from "../core/errors.ts";
import { readSecretFile } from "./secret_file.ts";

/** Where the key may be instead of in a file: 32 random bytes or more, in hexadecimal or base64. */
export const CLUSTER_KEY_VARIABLE = "LLUMNIX_CLUSTER_KEY";

export const CLUSTER_KEY_BYTES = 32;
const KEY_FILE_OPTION = "--cluster-key-file";

export interface ClusterKeyOptions {
  readonly clusterKeyFile?: string | null;
  readonly clusterInsecure?: boolean;
}

/**
 * The key in effect; null for none, without which no process connects over TCP.
 * @throws {UsageError} the key is too short, or others can read its file
 */
export function clusterKey(
  { clusterKeyFile = null, clusterInsecure = false }: ClusterKeyOptions,
  env: { get(name: string): string | undefined } = Deno.env,
): ClusterKey | null {
  const written = env.get(CLUSTER_KEY_VARIABLE) || null;
  if (clusterInsecure) {
    if (clusterKeyFile === null && written === null) return "insecure";
    const other = clusterKeyFile === null ? CLUSTER_KEY_VARIABLE : "--cluster-key-file";
    throw new UsageError(`--cluster-insecure and ${other} exclude each other: leave one out`);
  }
  if (clusterKeyFile !== null) {
    return parseKey(
      readSecretFile(clusterKeyFile, KEY_FILE_OPTION),
      `${KEY_FILE_OPTION} ${clusterKeyFile}`,
    );
  }
  return written === null ? null : parseKey(written, CLUSTER_KEY_VARIABLE);
}

/**
 * Makes a key in a new file that only this user can read.
 * @throws {UsageError} the file is there, or cannot be made
 */
export function makeKeyFile(path: string): void {
  const key = crypto.getRandomValues(new Uint8Array(CLUSTER_KEY_BYTES));
  try {
    Deno.writeTextFileSync(path, `${key.toHex()}\n`, { createNew: true, mode: 0o600 });
  } catch (error) {
    throw new UsageError(
      error instanceof Deno.errors.AlreadyExists
        ? `${path} is there already: a new key would lock out those that have this one`
        : `cannot write ${path}: ${(error as Error).message}`,
    );
  }
}

function parseKey(written: string, where: string): Uint8Array<ArrayBuffer> {
  const key = decode(written.trim());
  if (key === null) {
    throw new UsageError(
      `${where} is no key: expected hexadecimal or base64, as llumnix keygen writes`,
    );
  }
  if (key.length < CLUSTER_KEY_BYTES) {
    throw new UsageError(
      `${where} has ${key.length} bytes: expected ${CLUSTER_KEY_BYTES} random bytes or more, as ` +
        "llumnix keygen makes them",
    );
  }
  return key;
}

function decode(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    if (/^(?:[0-9a-f]{2})+$/i.test(text)) return Uint8Array.fromHex(text);
    return Uint8Array.fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return null;
  }
}

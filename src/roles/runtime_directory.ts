import { dirname } from "node:path";
import { MAX_UNIX_PATH_BYTES } from "../bus/address.ts";
import { UsageError } from "../core/errors.ts";
import { removeIfPresent } from "../core/files.ts";

/** Bytes of MAX_UNIX_PATH_BYTES for a socket in the directory: "/instance-1234567.sock". */
const SOCKET_NAME_BYTES = 24;

/** The runtime directory that a predecessor made, from the path of a socket in it. */
export function takenOverDirectory(socketPath: string): RuntimeDirectory {
  const path = dirname(socketPath);
  return { path, remove: () => removeIfPresent(path) };
}

/** A private directory for the sockets of one service. */
export interface RuntimeDirectory {
  readonly path: string;
  /** Removes the directory and its content. Idempotent. */
  remove(): void;
}

/**
 * Makes `llumnix-<pid>-<random>`, mode 700, in the first of `$RUNTIME_DIRECTORY`,
 * `$XDG_RUNTIME_DIR`, `$TMPDIR` and `/tmp` that is writable and short enough for socket paths.
 * @throws {UsageError} none of them is
 */
export function makeRuntimeDirectory(
  env: { get(name: string): string | undefined } = Deno.env,
): RuntimeDirectory {
  const random = crypto.randomUUID().slice(0, 8);
  const refusals: string[] = [];
  const ofUnit = env.get("RUNTIME_DIRECTORY")?.split(":")[0]; // systemd.exec(5)
  for (const parent of [ofUnit, env.get("XDG_RUNTIME_DIR"), env.get("TMPDIR"), "/tmp"]) {
    if (!parent) continue;
    const path = `${parent.replace(/\/+$/, "")}/llumnix-${Deno.pid}-${random}`;
    const bytes = new TextEncoder().encode(path).length;
    if (bytes + SOCKET_NAME_BYTES > MAX_UNIX_PATH_BYTES) {
      refusals.push(`${parent} is too long for socket paths`);
      continue;
    }
    try {
      Deno.mkdirSync(path, { mode: 0o700 });
      return { path, remove: () => removeIfPresent(path) };
    } catch (error) {
      refusals.push(`${parent}: ${(error as Error).message}`);
    }
  }
  throw new UsageError(
    `no directory for sockets: ${refusals.join("; ")}. Set XDG_RUNTIME_DIR to a short path that ` +
      `can be written.`,
  );
}

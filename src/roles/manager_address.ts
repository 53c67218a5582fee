/** The address where the processes of a service meet when its roles run apart. */
import { dirname, join } from "node:path";
import { MAX_UNIX_PATH_BYTES, parseAddress } from "../bus/address.ts";
import type { Address } from "../bus/bus.ts";
import { checkSocketDirectory } from "../bus/unix_trust.ts";
import { realClock, sleep } from "../core/clock.ts";
import { LlumnixError, UsageError } from "../core/errors.ts";
import { removeIfPresent } from "../core/files.ts";
import { isUnspecified } from "../core/hosts.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import { instanceOfSocket } from "../instance/instance_socket.ts";

/** Most time until a killed process has ended. */
const END_WAIT_MS = 1_000;
const END_POLL_MS = 20;

type Environment = { get(name: string): string | undefined };

/**
 * The address in effect: the given one, or a socket that is the same for all processes of a user.
 * @param written `--manager-address`, or null
 * @throws {UsageError} other processes cannot reach the given address
 */
export function managerAddress(written: string | null, env: Environment = Deno.env): Address {
  if (written === null) return `unix:${join(userDirectory(env), "manager.sock")}`;
  try {
    const parsed = parseAddress(written);
    if (parsed.scheme === "tcp" && isUnspecified(parsed.host)) throw unspecifiedError(written);
    if (parsed.scheme !== "inproc") return written;
  } catch (error) {
    if (!(error instanceof LlumnixError) || error instanceof UsageError) throw error;
  }
  throw new UsageError(
    `--manager-address ${written}: expected tcp:HOST:PORT, or unix:PATH with a path of at most ` +
      `${MAX_UNIX_PATH_BYTES} bytes`,
  );
}

function unspecifiedError(written: string): UsageError {
  return new UsageError(
    `--manager-address ${written}: API servers and instances connect to this address; expected a host ` +
      "name or IP address of the manager's host that they reach, and not one that stands for all of its " +
      "addresses",
  );
}

/**
 * The directory in which the processes of this user meet: that of the systemd unit if there is one.
 * RUNTIME_DIRECTORY may list several (systemd.exec(5)); the first counts.
 */
export function userDirectory(env: Environment = Deno.env): string {
  const ofUnit = env.get("RUNTIME_DIRECTORY")?.split(":")[0];
  if (ofUnit) return ofUnit;
  const runtimeDirectory = env.get("XDG_RUNTIME_DIR");
  if (runtimeDirectory) return join(runtimeDirectory, "llumnix");
  return join(env.get("TMPDIR") || "/tmp", `llumnix-${Deno.uid()}`);
}

/** The address of a manager, locked: no other manager can take it until it is released. */
export interface ManagerPlace {
  readonly address: Address;
  /** A previous manager here did not stop in order: its instances may still run. */
  readonly wasAbandoned: boolean;
  /** Instances that the previous manager left running; null if unknown. */
  readonly survivors: readonly InstanceId[] | null;
  /** Leaves it to another manager, which finds the instances that still run. */
  leave(): void;
  /** Removes the sockets of instances that have ended, and the lock. */
  release(): Promise<void>;
}

/**
 * Takes the place of the manager at an address.
 * @throws {UsageError} another manager has the address, or the directory is unusable or another user's
 */
export async function takeManagerPlace(address: Address): Promise<ManagerPlace> {
  const parsed = parseAddress(address);
  if (parsed.scheme !== "unix") {
    // Binding the port locks it. A previous manager leaves no trace.
    const release = () => Promise.resolve();
    return { address, wasAbandoned: true, survivors: null, leave: () => {}, release };
  }
  const directory = dirname(parsed.path);
  prepareDirectory(directory);
  const lockPath = `${parsed.path}.lock`;
  const lock = await Deno.open(lockPath, { create: true, write: true, mode: 0o600 });
  if (!await lock.tryLock(true)) {
    lock.close();
    throw takenError(address);
  }
  const { alive, dead } = await sortSockets(directory);
  return {
    address,
    wasAbandoned: alive.length + dead.length > 0 || exists(parsed.path),
    survivors: alive,
    leave: () => lock.close(),
    async release() {
      await removeSockets(directory);
      Deno.removeSync(lockPath); // while it is held: the next manager makes a new file
      lock.close();
    },
  };
}

/** The error for a second manager at an address, or for a port that another service has. */
export function takenError(address: Address): UsageError {
  const holder = parseAddress(address).scheme === "unix"
    ? "another manager serves"
    : "another manager or service listens";
  return new UsageError(
    `${holder} at ${address}: stop that one first, or give this one and its API servers and ` +
      `instances another --manager-address`,
  );
}

/** Makes a private directory for sockets, unless there is one. */
export function prepareDirectory(directory: string): void {
  try {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new UsageError(`cannot use ${directory} for sockets: ${(error as Error).message}`);
  }
  // A sticky directory such as /tmp is everybody's; the socket in it is ours alone (mode 600).
  checkSocketDirectory(directory);
}

/** Sorts instances by their sockets into alive and dead, and removes the sockets of dead ones. */
async function sortSockets(directory: string) {
  const alive: InstanceId[] = [], dead: InstanceId[] = [];
  for (const { name } of [...Deno.readDirSync(directory)]) {
    const instanceId = instanceOfSocket(name);
    if (instanceId === null) continue;
    const path = join(directory, name);
    const isDead = await refusesConnections(path);
    if (isDead) removeIfPresent(path);
    (isDead ? dead : alive).push(instanceId);
  }
  return { alive, dead };
}

/** Removes the sockets of ended instances; waits a moment for those that were just sent a signal. */
async function removeSockets(directory: string): Promise<void> {
  const untilMs = realClock.nowMs() + END_WAIT_MS;
  while ((await sortSockets(directory)).alive.length > 0 && realClock.nowMs() < untilMs) {
    await sleep(realClock, END_POLL_MS);
  }
}

/** Nobody listens at a socket: its process has ended. */
export async function refusesConnections(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return false;
  } catch (error) {
    // Not found: the instance has just removed it while ending.
    return error instanceof Deno.errors.ConnectionRefused ||
      error instanceof Deno.errors.NotFound;
  }
}

function exists(path: string): boolean {
  try {
    return Deno.lstatSync(path).isSocket === true;
  } catch {
    return false;
  }
}

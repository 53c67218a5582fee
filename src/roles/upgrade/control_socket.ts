/** Where `llumnix upgrade`, and successors, reach a process that serves: a socket with its pid in the name. */
import { join } from "node:path";
import type { Address } from "../../bus/bus.ts";
import { removeIfPresent } from "../../core/files.ts";
import { prepareDirectory, refusesConnections, userDirectory } from "../manager_address.ts";

const NAME = /^control-([1-9]\d{0,9})\.sock$/;

type Environment = { get(name: string): string | undefined };

/** @param directory that of the user, or of the systemd unit */
export function controlAddress(pid: number, directory: string = userDirectory()): Address {
  return `unix:${join(directory, `control-${pid}.sock`)}`;
}

/**
 * Makes the directory for control sockets, and removes those that killed processes left in it.
 * @throws {UsageError} it cannot be made, or is another user's
 */
export async function prepareControlDirectory(directory: string = userDirectory()): Promise<void> {
  prepareDirectory(directory);
  for (const name of namesIn(directory).filter((name) => NAME.test(name))) {
    const path = join(directory, name);
    if (await refusesConnections(path)) removeIfPresent(path);
  }
}

/** A process that serves, or that left its socket behind. */
export interface ControlSocket {
  readonly pid: number;
  readonly address: Address;
}

/** The control sockets of this user's processes, in the order of their pids. */
export function controlSockets(env: Environment = Deno.env): ControlSocket[] {
  const directory = userDirectory(env);
  return namesIn(directory)
    .flatMap((name) => NAME.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b)
    .map((pid) => ({ pid, address: controlAddress(pid, directory) }));
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

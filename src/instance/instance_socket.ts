/** Names of the instances' unix sockets. They lie beside the manager's, among other files. */
import { dirname } from "node:path";
import { parseAddress, tcpAddress } from "../bus/address.ts";
import type { Address } from "../bus/bus.ts";
import { UsageError } from "../core/errors.ts";
import type { InstanceId } from "../core/protocol/generate.ts";

/** Ids that this program generates start like this. */
const OWN_ID = /^instance-/;
const SOCKET = /^(?:instance=(.+)|(instance-.*))\.sock$/;
/** Ids stand in file names and in URLs of `/admin`. */
const GIVEN_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * The address of an instance: in the directory of the manager's socket, or on its network
 * interface.
 * @throws {UnavailableError} the path of the socket is too long
 */
export function serviceAddress(managerAddress: Address, instanceId: InstanceId): Address {
  const manager = parseAddress(managerAddress);
  switch (manager.scheme) {
    case "inproc":
      return `inproc:${instanceId}`;
    case "unix": {
      const name = OWN_ID.test(instanceId) ? instanceId : `instance=${instanceId}`;
      const address = `unix:${dirname(manager.path)}/${name}.sock`;
      parseAddress(address);
      return address;
    }
    case "tcp":
      return tcpAddress(manager.host, 0);
  }
}

/** The instance whose socket has this file name; null for other files. */
export function instanceOfSocket(fileName: string): InstanceId | null {
  const match = SOCKET.exec(fileName);
  return match && (match[1] ?? match[2]);
}

/** @throws {UsageError} the id has other characters, or is too long */
export function checkInstanceId(instanceId: InstanceId): void {
  if (GIVEN_ID.test(instanceId)) return;
  throw new UsageError(
    `--instance-id ${
      JSON.stringify(instanceId)
    }: expected up to 64 letters, digits, ".", "_" and ` +
      '"-", starting with a letter or a digit',
  );
}

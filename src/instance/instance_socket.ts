/** How the sockets of instances are called, beside the manager's and perhaps among others' files. */
import { dirname } from "node:path";
import { parseAddress, tcpAddress } from "../bus/address.ts";
import type { Address } from "../bus/bus.ts";
import { UsageError } from "../core/errors.ts";
import type { InstanceId } from "../core/protocol/generate.ts";

/** Ids that the program gives begin so. */
const OWN_ID = /^instance-/;
const SOCKET = /^(?:instance=(.+)|(instance-.*))\.sock$/;
/** The name of a socket has them, and what `/admin` is asked for. */
const GIVEN_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * Where an instance serves: beside the manager, in its directory or on its network interface.
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

/** Whose socket it is; null: no instance's. */
export function instanceOfSocket(fileName: string): InstanceId | null {
  const match = SOCKET.exec(fileName);
  return match && (match[1] ?? match[2]);
}

/** @throws {UsageError} it cannot be one */
export function checkInstanceId(instanceId: InstanceId): void {
  if (GIVEN_ID.test(instanceId)) return;
  throw new UsageError(
    `--instance-id ${
      JSON.stringify(instanceId)
    }: expected up to 64 letters, digits, ".", "_" and ` +
      '"-", of which the first is a letter or digit',
  );
}

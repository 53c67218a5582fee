/** Names of the instances' unix sockets. They lie beside the manager's, among other files. */
import { isIP } from "node:net";
import { dirname } from "node:path";
import { parseAddress, tcpAddress } from "../bus/address.ts";
import type { Address } from "../bus/bus.ts";
import { UnavailableError, UsageError } from "../core/errors.ts";
import { isLoopback, isUnspecified } from "../core/hosts.ts";
import type { InstanceId } from "../core/protocol/generate.ts";

/** Ids that this program generates start like this. */
const OWN_ID = /^instance-/;
const SOCKET = /^(?:instance=(.+)|(instance-.*))\.sock$/;
/** A DNS name or an IP address; it stands in URLs of `/admin`. */
const HOST_NAME = /^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}$/;
/** Ids stand in file names and in URLs of `/admin`. */
const GIVEN_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * The address at which an instance listens: in the directory of the manager's socket, or at a free port
 * of its own host.
 * @param host of the instance, for TCP
 * @throws {UnavailableError} the path of the socket is too long, or the connection to the manager, which
 *   tells the host, is lost
 * @throws {UsageError} other hosts cannot reach the host
 */
export function serviceAddress(
  managerAddress: Address,
  instanceId: InstanceId,
  host: string | null,
): Address {
  const manager = parseAddress(managerAddress);
  switch (manager.scheme) {
    case "inproc":
      return `inproc:${instanceId}`;
    case "unix": {
      const address = `unix:${socketPath(manager.path, instanceId)}`;
      parseAddress(address);
      return address;
    }
    case "tcp":
      if (host === null) throw new UnavailableError("the manager is gone");
      checkHost(host);
      return tcpAddress(host, 0);
  }
}

/** The path of an instance's socket, which lies beside that of its manager. */
export function socketPath(managerPath: string, instanceId: InstanceId): string {
  const name = OWN_ID.test(instanceId) ? instanceId : `instance=${instanceId}`;
  return `${dirname(managerPath)}/${name}.sock`;
}

/**
 * Checks the name of this host.
 * @throws {UsageError} it has other characters, or is too long
 */
export function checkHostName(hostName: string): void {
  if (HOST_NAME.test(hostName)) return;
  throw new UsageError(
    `--host-name ${
      JSON.stringify(hostName)
    }: expected up to 253 letters, digits, ".", ":", "_" and "-", starting with a letter or a digit`,
  );
}

/**
 * Checks the host that other processes are told to connect to.
 * @param option that names it
 * @throws {UsageError} it is no IP address, or stands for all addresses of a host
 */
export function checkHost(host: string, option = "--host"): void {
  if (isIP(host) !== 0 && !isUnspecified(host)) return;
  throw new UsageError(
    `${option} ${
      JSON.stringify(host)
    }: other processes are told to connect to this address; expected an IP ` +
      "address of this host that they reach, such as 10.0.0.7",
  );
}

/**
 * The same where the manager is known, whose other hosts have to reach this one.
 * @throws {UsageError} as {@linkcode checkHost}, or no other host can reach it
 */
export function checkHostOf(manager: Address, host: string, option = "--host"): void {
  checkHost(host, option);
  const parsed = parseAddress(manager);
  if (!isLoopback(host) || parsed.scheme !== "tcp" || isLoopback(parsed.host)) return;
  throw new UsageError(
    `${option} ${host}: other processes are told to connect to this address, and on other hosts it is ` +
      `their own; the manager is at ${manager}. Expected an IP address of this host that they reach, or ` +
      `no ${option}: then it is the address that this host has on the way to the manager`,
  );
}

/**
 * Checks that this host has an address, at which it is to listen.
 * @throws {UnavailableError} it has not, or not yet: systemd may start a service early. Lists those that it has
 */
export function checkOwnAddress(host: string, option = "--host"): void {
  try {
    Deno.listen({ hostname: host, port: 0 }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrNotAvailable)) throw error;
    const own = Deno.networkInterfaces().map(({ address }) => address)
      .filter((address) => !isLoopback(address) && !/^fe80:/i.test(address));
    throw new UnavailableError(
      `${option} ${host}: this host has no such address; it has ${
        own.join(", ") || "none but loopback"
      }`,
    );
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

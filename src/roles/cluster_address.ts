/** Where a manager of `serve --cluster` listens, so that the same command works on each host. */
import { join } from "node:path";
import { tcpAddress } from "../bus/address.ts";
import type { Address } from "../bus/bus.ts";
import { type Clock, realClock, sleep } from "../core/clock.ts";
import { UnavailableError } from "../core/errors.ts";
import { MANAGER_WAIT_MS } from "../core/manager_wait.ts";
import { parseStoreUrl } from "../cluster/store/stores.ts";
import { userDirectory } from "./manager_address.ts";

/** Port of managers that are given no address. */
export const DEFAULT_MANAGER_PORT = 9000;
const CONNECT_TIMEOUT_MS = 1_000;
const RETRY_MS = 500;

/**
 * The manager's address on this host: the IP address that the host has on the way to the store's servers, or
 * a socket where the store is a directory of this host.
 * @param host name of this host
 * @param onWait no server answers: it is tried again for a minute
 * @throws {UsageError} `--cluster` is no URL of a cluster
 * @throws {UnavailableError} no server of the store could be reached in a minute, so the address is not known
 */
export async function ownManagerAddress(
  url: string,
  host: string,
  onWait: (reason: string) => void,
  clock: Clock = realClock,
): Promise<Address> {
  const { servers } = parseStoreUrl(url);
  if (servers.length === 0) return `unix:${join(userDirectory(), host, "manager.sock")}`;
  const untilMs = clock.nowMs() + MANAGER_WAIT_MS;
  let isWaiting = false;
  for (;;) {
    for (const server of servers) {
      const ip = await addressTo(server);
      if (ip !== null) return tcpAddress(ip, DEFAULT_MANAGER_PORT);
    }
    if (clock.nowMs() >= untilMs) break;
    if (!isWaiting) onWait(`waiting for the lease store: no server of ${url} can be reached`);
    isWaiting = true;
    await sleep(clock, RETRY_MS);
  }
  throw new UnavailableError(
    `no server of ${url} can be reached, so this host does not know its own address on the way there: ` +
      "start the store, or say where this host's manager shall listen (--manager-address tcp:HOST:PORT)",
  );
}

/** The address of this end of a connection; null: there is none. */
async function addressTo(server: string): Promise<string | null> {
  const colon = server.lastIndexOf(":");
  const hostname = server.slice(0, colon).replace(/^\[|\]$/g, "");
  const port = Number(server.slice(colon + 1));
  try {
    using connection = await Deno.connect({
      hostname,
      port,
      signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS),
    });
    return (connection.localAddr as Deno.NetAddr).hostname;
  } catch {
    return null;
  }
}

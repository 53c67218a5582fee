import { parseAddress } from "./address.ts";
import { type Bus, type BusLimits, defaultBusLimits } from "./bus.ts";
import { InProcessBus } from "./in_process_bus.ts";
import { SocketBus } from "./socket_bus.ts";
import type { ClusterKey } from "./tcp.ts";
import type { AnyBus } from "./transport.ts";

export interface BusOptions {
  readonly limits?: BusLimits;
  /** What processes have in common that may connect over TCP; absent or null: none may. */
  readonly clusterKey?: ClusterKey | null;
}

/** A bus for every kind of address; `inproc:` names are private to the bus returned. */
export function openBus({ limits = defaultBusLimits, clusterKey = null }: BusOptions = {}): Bus {
  const inProcess = new InProcessBus(limits);
  let sockets: Promise<AnyBus> | null = null;
  const busFor = (address: string): Promise<AnyBus> | AnyBus =>
    parseAddress(address).scheme === "inproc"
      ? inProcess
      : sockets ??= openSocketBus(limits, clusterKey);
  return {
    listen: async (address, service) => await (await busFor(address)).listen(address, service),
    connect: async (address, service, options) =>
      await (await busFor(address)).connect(address, service, options),
  };
}

/** Roles that share a process check no messages, and load no schemas. */
async function openSocketBus(
  limits: BusLimits,
  clusterKey: ClusterKey | null,
): Promise<SocketBus> {
  const { calls, notifications, PROTOCOL_VERSION: version } = await import(
    "../core/protocol/calls.ts"
  );
  return new SocketBus({ version, calls, notifications }, limits, clusterKey);
}

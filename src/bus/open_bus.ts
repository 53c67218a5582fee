/** The register of buses: which bus serves each scheme of an address. */
import { parseAddress, type ParsedAddress } from "./address.ts";
import { type Bus, type BusLimits, defaultBusLimits } from "./bus.ts";
import { InProcessBus } from "./in_process_bus.ts";
import { SocketBus } from "./socket_bus.ts";
import type { ClusterKey } from "./tcp.ts";
import type { AnyBus } from "./transport.ts";

type Scheme = ParsedAddress["scheme"];

export interface BusOptions {
  readonly limits?: BusLimits;
  /** The key that processes need to connect over TCP; absent or null: none may connect. */
  readonly clusterKey?: ClusterKey | null;
}

const buses: Readonly<
  Record<Scheme, (limits: BusLimits, key: ClusterKey | null) => AnyBus | Promise<AnyBus>>
> = {
  inproc: (limits) => new InProcessBus(limits),
  unix: openSocketBus,
  tcp: openSocketBus,
};

/** A bus for every kind of address; `inproc:` names are private to the bus returned. */
export function openBus({ limits = defaultBusLimits, clusterKey = null }: BusOptions = {}): Bus {
  const opened = new Map<Scheme, AnyBus | Promise<AnyBus>>();
  const busFor = (address: string): AnyBus | Promise<AnyBus> => {
    const { scheme } = parseAddress(address);
    const bus = opened.get(scheme) ?? buses[scheme](limits, clusterKey);
    opened.set(scheme, bus);
    return bus;
  };
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
  const { calls, notifications, packers, PROTOCOL_VERSION: version } = await import(
    "../core/protocol/calls.ts"
  );
  return new SocketBus({ version, calls, notifications, packers }, limits, clusterKey);
}

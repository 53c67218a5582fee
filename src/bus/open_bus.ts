/** The register of buses: what serves each scheme of an address. */
import { parseAddress, type ParsedAddress } from "./address.ts";
import { type Bus, type BusLimits, defaultBusLimits } from "./bus.ts";
import { InProcessBus } from "./in_process_bus.ts";
import { SocketBus } from "./socket_bus.ts";

type Scheme = ParsedAddress["scheme"];

const buses: Readonly<Record<Scheme, (limits: BusLimits) => Bus>> = {
  inproc: (limits) => new InProcessBus(limits),
  unix: (limits) => new SocketBus(limits),
  tcp: (limits) => new SocketBus(limits),
};

/** A bus for every kind of address; `inproc:` names are private to the bus returned. */
export function openBus(limits: BusLimits = defaultBusLimits): Bus {
  const opened = new Map<Scheme, Bus>();
  const busFor = (address: string): Bus => {
    const { scheme } = parseAddress(address);
    const bus = opened.get(scheme) ?? buses[scheme](limits);
    opened.set(scheme, bus);
    return bus;
  };
  return {
    listen: async (address, service) => await busFor(address).listen(address, service),
    connect: async (address, service, options) =>
      await busFor(address).connect(address, service, options),
  };
}

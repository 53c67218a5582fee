import { parseAddress } from "./address.ts";
import { type Bus, type BusLimits, defaultBusLimits } from "./bus.ts";
import { InProcessBus } from "./in_process_bus.ts";
import { SocketBus } from "./socket_bus.ts";

/** A bus for every kind of address; `inproc:` names are private to the bus returned. */
export function openBus(limits: BusLimits = defaultBusLimits): Bus {
  const inProcess = new InProcessBus(limits);
  const sockets = new SocketBus(limits);
  const busFor = (address: string) =>
    parseAddress(address).scheme === "inproc" ? inProcess : sockets;
  return {
    listen: async (address, service) => await busFor(address).listen(address, service),
    connect: async (address, service, options) =>
      await busFor(address).connect(address, service, options),
  };
}

import type { Bus, CallOptions, Message, Peer, Service } from "../../bus/bus.ts";
import { ConflictError, toErrorRecord } from "../../core/errors.ts";
import type { AgentJoin } from "../../core/protocol/agents.ts";
import type { JoinRequest } from "../../core/protocol/membership.ts";

/** Bugs that are planted to see whether the simulation catches them. */
export const plants = [
  /** A manager takes a start whose answer is lost for one that failed, and starts another instance. */
  "lost_answer_starts_again",
  /** An agent starts an instance again when the order comes again. */
  "start_is_not_idempotent",
  /** Agents and instances do not give the next manager what operators have ordered. */
  "orders_are_forgotten",
  /** A host that is lost for good keeps its share of the instances. */
  "dead_host_keeps_its_share",
  /** An agent starts one instance more than it has slots. */
  "slots_are_oversubscribed",
  /** A manager that leads again while it still gives its instances away begins in the role that ends. */
  "leads_again_in_the_old_role",
  /** An agent that is started again does not find its instances. */
  "agent_forgets_instances",
] as const;

export type Plant = typeof plants[number];

/** The bus of a manager with a planted bug. */
export function plantedManagerBus(bus: Bus, plant: Plant | null): Bus {
  if (plant !== "lost_answer_starts_again") return bus;
  return withCall(bus, (call) => async (method, message, options) => {
    try {
      return await call(method, message, options);
    } catch (error) {
      const isLost = method === "agent_start" && toErrorRecord(error).kind === "unavailable";
      throw isLost ? new ConflictError("the start has failed") : error;
    }
  });
}

/** The bus of an agent, or of an instance, with a planted bug. */
export function plantedBus(bus: Bus, plant: Plant | null): Bus {
  if (plant !== "orders_are_forgotten") return bus;
  return withCall(bus, (call) => (method, message, options) => {
    if (method !== "agent_join" && method !== "join") return call(method, message, options);
    const data = { ...message.data as AgentJoin | JoinRequest, orders: undefined };
    return call(method, { data }, options);
  });
}

/** As `Peer.call`, of whatever method. */
type Call = (method: string, message: Message, options?: CallOptions) => Promise<Message>;

/** The same connections, whose calls go through another function. */
function withCall(bus: Bus, callOf: (call: Call) => Call): Bus {
  const others = new WeakMap<Peer, Peer>();
  const otherOf = (peer: Peer): Peer => {
    const known = others.get(peer);
    if (known !== undefined) return known;
    const call = callOf(peer.call.bind(peer) as Call);
    const other = new Proxy(peer, {
      get(target, name) {
        if (name === "call") return call;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    others.set(peer, other);
    return other;
  };
  type Handler = (message: unknown, peer: Peer) => unknown;
  const handlersOf = (handlers: object | undefined) =>
    handlers && Object.fromEntries(
      Object.entries(handlers).map(([name, handler]: [string, Handler]) =>
        [name, (message: unknown, peer: Peer) => handler(message, otherOf(peer))] as const
      ),
    );
  const serviceOf = (service: Service): Service => ({
    calls: handlersOf(service.calls) as Service["calls"],
    notifications: handlersOf(service.notifications) as Service["notifications"],
    onConnect: service.onConnect && ((peer) => service.onConnect!(otherOf(peer))),
    onClose: service.onClose && ((peer, reason) => service.onClose!(otherOf(peer), reason)),
  });
  return {
    listen: (address, service) => bus.listen(address, serviceOf(service)),
    connect: async (address, service, options) =>
      otherOf(await bus.connect(address, serviceOf(service), options)),
  };
}

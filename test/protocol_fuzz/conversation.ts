/** Conversations over the bus, as they were held by roles that behave. */
import type { Address, CallOptions } from "../../src/bus/bus.ts";
import type { AnyBus, AnyMessage, AnyPeer, AnyService } from "../../src/bus/transport.ts";

/** What one end said. */
export interface Step {
  readonly kind: "call" | "notify" | "answer";
  readonly method: string;
  readonly data: unknown;
  readonly payload?: Uint8Array<ArrayBuffer>;
}

/** All that was said over one connection, in order. */
export interface Conversation {
  /** The role that connected. */
  readonly role: string;
  readonly address: Address;
  /** Said by the role that connected. */
  readonly near: Step[];
  /** Said by the role that listens. */
  readonly far: Step[];
}

/** Records the conversations of connections that are made over a bus. */
export class Recorder {
  readonly conversations: Conversation[] = [];

  /** The bus of one role. */
  record(bus: AnyBus, role: string): AnyBus {
    return {
      listen: (address, service) => bus.listen(address, service),
      connect: async (address, service, options) => {
        const conversation: Conversation = { role, address, near: [], far: [] };
        this.conversations.push(conversation);
        const peer = await bus.connect(address, recordedService(conversation, service), options);
        return recordedPeer(conversation, peer);
      },
    };
  }
}

function recordedPeer({ near, far }: Conversation, peer: AnyPeer): AnyPeer {
  return {
    get remote() {
      return peer.remote;
    },
    get isOpen() {
      return peer.isOpen;
    },
    get pid() {
      return peer.pid;
    },
    get localHost() {
      return peer.localHost;
    },
    get bufferedBytes() {
      return peer.bufferedBytes;
    },
    close: () => peer.close(),
    async call(method: string, message: AnyMessage, options?: CallOptions) {
      near.push(stepOf("call", method, message));
      const answer = await peer.call(method, message, options);
      far.push(stepOf("answer", method, answer));
      return answer;
    },
    notify(method: string, message: AnyMessage) {
      near.push(stepOf("notify", method, message));
      peer.notify(method, message);
    },
  };
}

function recordedService({ near, far }: Conversation, service: AnyService): AnyService {
  const calls = Object.entries(service.calls ?? {}).map(([method, handler]) => [
    method,
    async (message: AnyMessage, peer: AnyPeer) => {
      far.push(stepOf("call", method, message));
      const answer = await handler!(message, peer);
      near.push(stepOf("answer", method, answer));
      return answer;
    },
  ]);
  const notifications = Object.entries(service.notifications ?? {}).map(([method, handler]) => [
    method,
    (message: AnyMessage, peer: AnyPeer) => {
      far.push(stepOf("notify", method, message));
      handler!(message, peer);
    },
  ]);
  return {
    onClose: service.onClose?.bind(service),
    calls: Object.fromEntries(calls),
    notifications: Object.fromEntries(notifications),
  };
}

function stepOf(kind: Step["kind"], method: string, { data, payload }: AnyMessage): Step {
  return { kind, method, data: structuredClone(data ?? null), payload: payload?.slice() };
}

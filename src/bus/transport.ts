/**
 * The bus as a transport sees it: any method, and data that it does not read. Every implementation of
 * `Bus` is written with these types, and assignable to both.
 */
import type { Address, CallOptions, Listener, Message, Peer } from "./bus.ts";

// deno-lint-ignore no-explicit-any -- what a method carries is known where it is called or handled
export type AnyMessage = Message<any>;

export type AnyCallHandler = (
  message: AnyMessage,
  peer: AnyPeer,
) => Promise<AnyMessage> | AnyMessage;

export type AnyNotifyHandler = (message: AnyMessage, peer: AnyPeer) => void;

/** See `Service`. */
export interface AnyService {
  readonly calls?: Readonly<Record<string, AnyCallHandler | undefined>>;
  readonly notifications?: Readonly<Record<string, AnyNotifyHandler | undefined>>;
  onConnect?(peer: AnyPeer): void;
  onClose?(peer: AnyPeer, reason: string): void;
}

/** See {@linkcode Peer}. */
export interface AnyPeer
  extends Pick<Peer, "remote" | "isOpen" | "pid" | "localHost" | "bufferedBytes" | "close"> {
  call(method: string, message: AnyMessage, options?: CallOptions): Promise<AnyMessage>;
  notify(method: string, message: AnyMessage): void;
}

/** See `Bus`. */
export interface AnyBus {
  listen(address: Address, service: AnyService): Promise<Listener>;
  connect(address: Address, service: AnyService, options?: CallOptions): Promise<AnyPeer>;
}

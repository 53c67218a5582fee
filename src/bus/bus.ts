import type {
  CallName,
  NoticeOf,
  NotificationName,
  ReplyOf,
  RequestOf,
} from "../core/protocol/calls.ts";

/**
 * RPC and message streams between roles. Every implementation (in-process, sockets, later NATS)
 * passes the suite in `test/conformance/bus.ts`.
 *
 * A connection has two equal ends, {@linkcode Peer}s; either may call the other. Messages between
 * two peers arrive in the order sent, or the connection closes: nothing is lost in silence.
 * Parameters and results are JSON data, with optional binary payloads beside them.
 */

/** `inproc:NAME`, `unix:PATH` or `tcp:HOST:PORT`. */
export type Address = string;

/** JSON data and bytes that travel together. */
export interface Message<Data = unknown> {
  readonly data: Data;
  /**
   * The sender may use its buffer again once `call` or `notify` has returned; what a handler or caller
   * receives is its own to keep.
   */
  readonly payload?: Uint8Array<ArrayBuffer>;
  /** The sender uses its buffer no more, so that it need not be copied. */
  readonly isPayloadGiven?: boolean;
  /**
   * A receiver that has done with the payload can give its buffer back, so that the connection fills it
   * anew: large ones that come and go keep the garbage collector busy. Absent if nothing is gained.
   */
  readonly giveBack?: () => void;
}

/**
 * Answers one call. A LlumnixError that it throws reaches the caller as the same kind, its message cut
 * if it is too long for a frame. Any other error, and a MessageError, also closes the connection.
 */
export type CallHandler<M extends CallName> = (
  message: Message<RequestOf<M>>,
  peer: Peer,
) => Promise<Message<ReplyOf<M>>> | Message<ReplyOf<M>>;

/** Handles a message that has no answer. An error that it throws closes the connection. */
export type NotifyHandler<M extends NotificationName> = (
  message: Message<NoticeOf<M>>,
  peer: Peer,
) => void;

/** What one end offers to the other. */
export interface Service {
  readonly calls?: { readonly [M in CallName]?: CallHandler<M> };
  readonly notifications?: { readonly [M in NotificationName]?: NotifyHandler<M> };
  /** A connection was accepted (listeners only). */
  onConnect?(peer: Peer): void;
  /** The connection ended, for any reason. Called once, after the last handler began. Must not throw. */
  onClose?(peer: Peer, reason: string): void;
}

export interface CallOptions {
  /** Milliseconds until the call is rejected with UnavailableError; default 10,000. */
  readonly timeoutMs?: number;
}

/** One end of a connection. */
export interface Peer {
  /** Address of the other end as given to `connect`, or a description for accepted peers. */
  readonly remote: string;
  readonly isOpen: boolean;
  /**
   * The process at the other end, as the system says: of this process for its own connections, of Unix
   * sockets on Linux. Null: not known, and nothing that the other end says of itself makes it known.
   */
  readonly pid: number | null;
  /**
   * IP address of this end of a TCP connection, by which the network of the other end reaches this host.
   * Null for other connections.
   */
  readonly localHost: string | null;
  /**
   * Bytes accepted by `call` and `notify` that the transport has not taken yet; JSON counts one per
   * UTF-16 unit.
   */
  readonly bufferedBytes: number;
  /**
   * Calls a method of the other end.
   * @throws {UnavailableError} the connection is or gets closed, or the time is over
   * @throws {OverloadedError} too many calls wait for their answers
   * @throws {RequestError} the message is over {@linkcode BusLimits.maxFrameBytes}
   * @throws {LlumnixError} of the kind that the handler threw
   */
  call<M extends CallName>(
    method: M,
    message: Message<RequestOf<M>>,
    options?: CallOptions,
  ): Promise<Message<ReplyOf<M>>>;
  /**
   * Sends without an answer. A no-op on a closed peer. When more than the limit of
   * {@linkcode BusLimits.maxBufferedBytes} is waiting, the connection is closed: the other end
   * does not keep up.
   * @throws {RequestError} the message is over {@linkcode BusLimits.maxFrameBytes}
   */
  notify<M extends NotificationName>(method: M, message: Message<NoticeOf<M>>): void;
  /** Sends the buffered messages, then closes; `onClose` follows at both ends. Idempotent. */
  close(): Promise<void>;
}

/** A bound address. */
export interface Listener {
  /** The address with its port filled in. */
  readonly address: Address;
  /** Stops accepting and closes the accepted peers. Idempotent. */
  close(): Promise<void>;
}

export interface BusLimits {
  /** Largest JSON and payload of one message, in either direction. */
  readonly maxFrameBytes: number;
  /** Largest backlog of one peer. */
  readonly maxBufferedBytes: number;
  /** Most calls of one peer without an answer. */
  readonly maxPendingCalls: number;
}

export const defaultBusLimits: BusLimits = {
  maxFrameBytes: 64 << 20,
  maxBufferedBytes: 256 << 20,
  maxPendingCalls: 100_000,
};

export interface Bus {
  /**
   * Binds an address.
   * @throws {UnavailableError} the address is in use or malformed
   * @throws {UsageError} a socket there could be another user's
   */
  listen(address: Address, service: Service): Promise<Listener>;
  /**
   * Connects to a listener.
   * @throws {NobodyListensError} nobody listens there
   * @throws {UnavailableError} `timeoutMs` (default 10,000) is over, or the address is out of reach
   * @throws {UsageError} the process that listens there is, or may be, another user's
   */
  connect(address: Address, service: Service, options?: CallOptions): Promise<Peer>;
}

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
export interface Message {
  readonly data: unknown;
  /**
   * The sender may use its buffer again once `call` or `notify` has returned; what a handler or caller
   * receives is its own to keep.
   */
  readonly payload?: Uint8Array<ArrayBuffer>;
  /** The sender uses its buffer no more, so that it need not be copied. */
  readonly isPayloadGiven?: boolean;
}

/**
 * Handles one method of a peer; what it throws reaches the caller as the same LlumnixError kind, its
 * message cut where it is too long for a frame.
 */
export type CallHandler = (message: Message, peer: Peer) => Promise<Message> | Message;

/** Handles a message that wants no answer. If it throws, the connection closes. */
export type NotifyHandler = (message: Message, peer: Peer) => void;

/** What one end offers to the other. */
export interface Service {
  readonly calls?: Readonly<Record<string, CallHandler>>;
  readonly notifications?: Readonly<Record<string, NotifyHandler>>;
  /** A connection was accepted (listeners only). */
  onConnect?(peer: Peer): void;
  /** The connection ended, for whatever reason; called once, after the last handler began. Must not throw. */
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
  call(method: string, message: Message, options?: CallOptions): Promise<Message>;
  /**
   * Sends without an answer. A no-op on a closed peer. When more than the limit of
   * {@linkcode BusLimits.maxBufferedBytes} is waiting, the connection is closed: the other end
   * does not keep up.
   * @throws {RequestError} the message is over {@linkcode BusLimits.maxFrameBytes}
   */
  notify(method: string, message: Message): void;
  /** Sends what is buffered, then closes; `onClose` follows at both ends. Idempotent. */
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
   */
  listen(address: Address, service: Service): Promise<Listener>;
  /**
   * Connects to a listener.
   * @throws {NobodyListensError} nobody listens there
   * @throws {UnavailableError} `timeoutMs` (default 10,000) is over, or the address is out of reach
   */
  connect(address: Address, service: Service, options?: CallOptions): Promise<Peer>;
}

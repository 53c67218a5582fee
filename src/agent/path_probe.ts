/** How fast one host's bytes reach another: an agent listens for a moment, and another one sends. */
import { dirname } from "node:path";
import { parseAddress, tcpAddress } from "../bus/address.ts";
import type { Address, Bus, Listener, Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UnavailableError } from "../core/errors.ts";
import type { PathSpeed } from "../core/protocol/examination.ts";

const CHUNK_BYTES = 64 << 10;
/** Most bytes of a measurement: on a fast path they are sent in 0.1 s, which a service hardly notices. */
export const MAX_PATH_BYTES = 32 << 20;
/** Most bytes on their way. At 50 ms of round trip they are enough for 80 MB/s. */
const MAX_IN_FLIGHT_BYTES = 4 << 20;
/** A connection needs several round trips to reach its speed. */
const ROUND_TRIPS = 40;
/** An answer that comes later than this and two round trips means that a queue grows. */
const MAX_QUEUE_MS = 100;
const MIN_MS = 300;
const MAX_MS = 2_000;
/** Empty messages before the bytes; the fastest one counts. */
const PINGS = 5;
const CONNECT_TIMEOUT_MS = 2_000;
/** A path on which 64 KiB take longer is not measured. */
const CHUNK_TIMEOUT_MS = 3_000;
/** A listener closes after this time, even if a transfer still runs. */
const LISTEN_MS = 10_000;

export interface PathProbeConfig {
  readonly bus: Bus;
  readonly clock: Clock;
}

/**
 * Where a host listens while a path to it is measured: as its instances do, at any free port of the host or
 * beside the manager's socket.
 * @param ownHost IP address at which others reach this host; null without TCP
 * @throws {UnavailableError} the path of the socket is too long, or the own address is not known
 */
export function pathAddress(manager: Address, host: string, ownHost: string | null): Address {
  const parsed = parseAddress(manager);
  switch (parsed.scheme) {
    case "inproc":
      return `inproc:path-${host}`;
    case "unix": {
      const address = `unix:${dirname(parsed.path)}/path-${host}.sock`;
      parseAddress(address);
      return address;
    }
    case "tcp":
      if (ownHost === null) throw new UnavailableError("the manager is gone");
      return tcpAddress(ownHost, 0);
  }
}

/** One host's ends of the paths that a manager has measured. */
export class PathProbe {
  readonly #config: PathProbeConfig;
  #listener: Listener | null = null;
  #cancelClose: () => void = () => {};

  constructor(config: PathProbeConfig) {
    this.#config = config;
  }

  /**
   * Listens for one sender, and for ten seconds at most. An earlier listener closes.
   * @returns the address with its port
   * @throws {UnavailableError} the address cannot be bound
   */
  async receive(address: Address): Promise<Address> {
    await this.close();
    const { bus, clock } = this.#config;
    let sender: Peer | null = null;
    let bytes = 0;
    const listener: Listener = await bus.listen(address, {
      calls: {
        path_bytes: ({ payload }, peer) => {
          bytes += payload?.length ?? 0;
          if (bytes > MAX_PATH_BYTES) peer.close();
          return { data: null };
        },
      },
      onConnect: (peer) => {
        if (sender === null) sender = peer;
        else peer.close();
      },
      onClose: (peer) => {
        if (peer === sender) this.#end(listener);
      },
    });
    this.#listener = listener;
    this.#cancelClose = clock.after(LISTEN_MS, () => this.#end(listener));
    return listener.address;
  }

  /**
   * Sends for 0.3 s, on longer paths for 40 round trips and 2 s at most, or until enough is sent.
   * @throws {LlumnixError} the address is out of reach, or the path carries less than 64 KiB in 3 s
   */
  async send(address: Address): Promise<PathSpeed> {
    const { bus } = this.#config;
    const peer = await bus.connect(address, {}, { timeoutMs: CONNECT_TIMEOUT_MS });
    try {
      const roundTripMs = await leastRoundTrip(peer);
      const limitMs = Math.min(MAX_MS, Math.max(MIN_MS, ROUND_TRIPS * roundTripMs));
      const { bytes, ms, bytesPerSecond } = await sendFor(peer, limitMs, roundTripMs);
      return { address, roundTripMs, bytes, ms, bytesPerSecond };
    } finally {
      await peer.close(); // the next measurement begins when this one's bytes are gone
    }
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.#listener !== null) await this.#end(this.#listener);
  }

  async #end(listener: Listener): Promise<void> {
    if (this.#listener === listener) {
      this.#listener = null;
      this.#cancelClose();
    }
    await listener.close();
  }
}

async function leastRoundTrip(peer: Peer): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < PINGS; i++) {
    const startMs = performance.now();
    await peer.call("path_bytes", { data: null }, { timeoutMs: CHUNK_TIMEOUT_MS });
    least = Math.min(least, performance.now() - startMs);
  }
  return least;
}

interface Sent {
  readonly bytes: number;
  readonly ms: number;
  readonly bytesPerSecond: number;
}

/**
 * Sends chunk by chunk, each with an answer. More and more are on their way as long as answers come in time: a
 * queue of 100 ms in front of others' bytes is enough. There is never more on its way than has arrived, and one
 * chunk, so that the end of a slow path's queue comes soon.
 */
function sendFor(peer: Peer, limitMs: number, roundTripMs: number): Promise<Sent> {
  const message = { data: null, payload: new Uint8Array(CHUNK_BYTES), isPayloadGiven: true };
  const arrivals: Arrival[] = [{ ms: 0, bytes: 0 }];
  const startMs = performance.now();
  const lateMs = 2 * roundTripMs + MAX_QUEUE_MS;
  let sent = 0, arrived = 0, mostOnTheWay = CHUNK_BYTES, isOver = false;
  const { promise, resolve, reject } = Promise.withResolvers<Sent>();
  const sendMore = () => {
    while (sent - arrived < mostOnTheWay && sent < MAX_PATH_BYTES) {
      sent += CHUNK_BYTES;
      const sentMs = performance.now();
      peer.call("path_bytes", message, { timeoutMs: CHUNK_TIMEOUT_MS })
        .then(() => noteArrival(performance.now() - sentMs), fail);
    }
  };
  const noteArrival = (tookMs: number) => {
    if (isOver) return;
    arrived += CHUNK_BYTES;
    const wanted = mostOnTheWay + (tookMs <= lateMs ? CHUNK_BYTES : -CHUNK_BYTES);
    mostOnTheWay = Math.min(MAX_IN_FLIGHT_BYTES, Math.max(CHUNK_BYTES, wanted));
    const ms = performance.now() - startMs;
    arrivals.push({ ms, bytes: arrived });
    isOver = ms >= limitMs || arrived >= MAX_PATH_BYTES;
    if (isOver) resolve({ bytes: arrived, ms, bytesPerSecond: speedOf(arrivals) });
    else sendMore();
  };
  const fail = (error: unknown) => {
    isOver = true;
    const what = `${CHUNK_BYTES >> 10} KiB did not get through in ${CHUNK_TIMEOUT_MS / 1000} s`;
    reject(peer.isOpen ? new UnavailableError(what, { cause: error }) : error);
  };
  sendMore();
  return promise;
}

interface Arrival {
  /** Since the begin. */
  readonly ms: number;
  /** All that had arrived then. */
  readonly bytes: number;
}

/**
 * Bytes per second of the best quarter of the time: a connection starts slowly, and needs some round trips after
 * a lost packet.
 * @param arrivals in order, from 0 ms on; two at least
 */
export function speedOf(arrivals: readonly Arrival[]): number {
  const leastMs = Math.max(arrivals.at(-1)!.ms / 4, 1e-3);
  let best = 0, from = 0;
  for (const { ms, bytes } of arrivals) {
    // The latest arrival that is a quarter before this one.
    while (ms - arrivals[from + 1].ms >= leastMs) from++;
    const tookMs = ms - arrivals[from].ms;
    if (tookMs >= leastMs) best = Math.max(best, 1_000 * (bytes - arrivals[from].bytes) / tookMs);
  }
  return best;
}

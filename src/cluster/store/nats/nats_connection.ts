import { jetstream } from "@nats-io/jetstream";
import { type KV, Kvm } from "@nats-io/kv";
import { connect, type NatsConnection, nkeyAuthenticator } from "@nats-io/transport-node";
import { StoreAwayError, StoreRefusedError } from "../lease_store.ts";
import type { StoreOptions } from "../store_kind.ts";
import { within } from "../within.ts";
import { quietSockets } from "./quiet_sockets.ts";

/** Pause of the client between two attempts to reconnect. */
const RECONNECT_WAIT_MS = 100;
/** A server that answers none of so many pings is left for another one. */
const MAX_UNANSWERED_PINGS = 2;
/** With as many servers, the bucket survives the loss of one. */
const REPLICAS = 3;
/** Errors of JetStream's API where there is none. */
const NOT_ENABLED = /jetstream.*not enabled|no responders/i;
const NO_BUCKET = /(?:stream|bucket) not found/i;
const ABOUT_CREDENTIALS = /authoriz|authentic|permission|credential|nkey/i;

/** A bucket, and what it is reached by. */
export interface OpenBucket {
  readonly connection: NatsConnection;
  readonly kv: KV;
  readonly js: ReturnType<typeof jetstream>;
}

/** A connection that is made when it is first needed, and made again when the client has given it up. */
export class NatsBucket {
  readonly name: string;
  #opening: Promise<OpenBucket> | null = null;
  #connection: NatsConnection | null = null;
  #isClosed = false;

  constructor(private readonly options: StoreOptions) {
    this.name = `llumnix-${options.path}`;
  }

  /**
   * Does something with the bucket, within the time limit.
   * @throws {StoreAwayError} no server answers
   * @throws {StoreRefusedError} the server does not want this client
   */
  async use<T>(work: (bucket: OpenBucket) => Promise<T>): Promise<T> {
    const { timeoutMs } = this.options;
    try {
      return await within(this.#open().then(work), timeoutMs, "NATS");
    } catch (error) {
      throw this.#explain(error as Error);
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const connection = this.#connection;
    this.#connection = null;
    if (connection) await within(connection.close(), this.options.timeoutMs, "").catch(() => {});
  }

  #open(): Promise<OpenBucket> {
    if (this.#isClosed) return Promise.reject(new StoreAwayError("the store is closed"));
    if (this.#opening !== null) return this.#opening;
    const opening = this.#openNow();
    // The next call tries again.
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = null;
    });
    return this.#opening = opening;
  }

  async #openNow(): Promise<OpenBucket> {
    const { servers, timeoutMs: timeout, mustExist = false } = this.options;
    const connection = this.#connection ??= await this.#connect();
    if (this.#isClosed) {
      await connection.close();
      throw new StoreAwayError("the store is closed");
    }
    const kv = await new Kvm(connection).create(this.name, {
      bindOnly: mustExist,
      history: 1,
      replicas: servers.length >= REPLICAS ? REPLICAS : 1,
      // A replica that is behind would answer with an older value.
      allow_direct: false,
      timeout,
    });
    if (mustExist) await kv.status(); // it binds to what is not there, too
    return { connection, kv, js: jetstream(connection, { timeout }) };
  }

  async #connect(): Promise<NatsConnection> {
    const { servers, timeoutMs, credentials } = this.options;
    const { user, password: pass, token, nkeySeed, authority } = credentials;
    quietSockets(servers);
    const connection = await connect({
      servers: [...servers],
      user,
      pass,
      token,
      authenticator: nkeySeed === undefined
        ? undefined
        : nkeyAuthenticator(new TextEncoder().encode(nkeySeed)),
      tls: authority === undefined ? undefined : { ca: authority },
      timeout: timeoutMs,
      // The client's own wait for the first connection has no limit.
      waitOnFirstConnect: false,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RECONNECT_WAIT_MS,
      pingInterval: timeoutMs,
      maxPingOut: MAX_UNANSWERED_PINGS,
    });
    // It has given up, such as after its credentials were refused twice.
    connection.closed().then(() => {
      if (this.#connection !== connection) return;
      this.#connection = null;
      this.#opening = null;
    });
    return connection;
  }

  #explain(error: Error): Error {
    if (error instanceof StoreAwayError || error instanceof StoreRefusedError) return error;
    const text = `${error.name}: ${error.message}`;
    if (ABOUT_CREDENTIALS.test(text)) {
      return new StoreRefusedError(`NATS refuses these credentials: ${text}`, { cause: error });
    }
    if (this.options.mustExist && NO_BUCKET.test(text)) {
      return new StoreRefusedError(
        `this NATS server has no bucket ${this.name}: no process of a cluster of this name has run`,
        { cause: error },
      );
    }
    if (NOT_ENABLED.test(text)) {
      // A server that starts, or wakes up, says so for a moment too.
      return new StoreAwayError(
        `this NATS server has no JetStream now (${text}); if that stays, start it with --jetstream`,
        { cause: error },
      );
    }
    return new StoreAwayError(`NATS does not answer: ${text}`, { cause: error });
  }
}

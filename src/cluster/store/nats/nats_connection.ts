import { jetstream } from "@nats-io/jetstream";
import { type KV, Kvm } from "@nats-io/kv";
import { connect, type NatsConnection, nkeyAuthenticator } from "@nats-io/transport-node";
import { HEDGE_PART, hedged } from "../hedged.ts";
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
/** Older servers know another way to make consumers, and a watch needs one. */
const OLDEST_SERVER = [2, 9] as const;
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

/**
 * A bucket, by two connections: a call that takes long on one is made on the other as well, since a lost
 * packet holds up all that comes behind it.
 */
export class NatsBucket {
  readonly name: string;
  readonly #links: readonly [NatsLink, NatsLink];

  constructor(private readonly options: StoreOptions) {
    this.name = `llumnix-${options.path}`;
    this.#links = [new NatsLink(this.name, options), new NatsLink(this.name, options)];
  }

  /**
   * Does something with the bucket, perhaps twice, within the time limit.
   * @throws {StoreAwayError} no server answers
   * @throws {StoreRefusedError} the server does not want this client
   */
  async use<T>(work: (bucket: OpenBucket) => Promise<T>): Promise<T> {
    const [first, second] = this.#links;
    const attempts = [
      async () => {
        const bucket = await first.open();
        second.open().catch(() => {}); // it has to be there when it is needed
        return await work(bucket);
      },
      async () => work(await second.open()),
    ] as const;
    return await this.#limited(hedged(attempts, this.options.timeoutMs * HEDGE_PART));
  }

  /** As {@linkcode use}, but by one connection, and never twice. */
  async useOnce<T>(work: (bucket: OpenBucket) => Promise<T>): Promise<T> {
    return await this.#limited(this.#links[0].open().then(work));
  }

  async close(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.close()));
  }

  async #limited<T>(work: Promise<T>): Promise<T> {
    try {
      return await within(work, this.options.timeoutMs, "NATS");
    } catch (error) {
      throw explained(error as Error, this.options.mustExist ? this.name : null);
    }
  }
}

/** A connection that is made when it is first needed, and made again when the client has given it up. */
class NatsLink {
  #opening: Promise<OpenBucket> | null = null;
  #connection: NatsConnection | null = null;
  #isClosed = false;

  constructor(private readonly bucket: string, private readonly options: StoreOptions) {}

  async close(): Promise<void> {
    this.#isClosed = true;
    const connection = this.#connection;
    this.#connection = null;
    if (connection) await within(connection.close(), this.options.timeoutMs, "").catch(() => {});
  }

  /** May take long, or for ever. @throws {Error} of the client */
  open(): Promise<OpenBucket> {
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
    checkVersion(connection.info?.version);
    const kv = await new Kvm(connection).create(this.bucket, {
      bindOnly: mustExist,
      history: 1,
      replicas: servers.length >= REPLICAS ? REPLICAS : 1,
      // A replica that is behind would answer with an older value.
      allow_direct: false,
      timeout,
    });
    const { streamInfo: { config } } = await kv.status(); // throws if it is not there
    checkSubjects(config.subjects, this.bucket);
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
}

/** @throws {StoreRefusedError} another program's stream has the name of the bucket's */
function checkSubjects(subjects: readonly string[], bucket: string): void {
  const expected = `$KV.${bucket}.>`;
  if (subjects.includes(expected)) return;
  throw new StoreRefusedError(
    `the stream KV_${bucket} of this NATS server is of another program: its subjects are ` +
      `${subjects.join(", ").slice(0, 200)}, expected ${expected}; give this cluster another name`,
  );
}

/** @throws {StoreRefusedError} the server is too old */
function checkVersion(version = "unknown"): void {
  const [major, minor] = version.split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_SERVER;
  const isOld = major < oldestMajor || (major === oldestMajor && minor < oldestMinor);
  if (!isOld) return;
  throw new StoreRefusedError(
    `this NATS server is of version ${version}: expected ${OLDEST_SERVER.join(".")} or later`,
  );
}

/** @param missingBucket the bucket that must exist; null: none */
function explained(error: Error, missingBucket: string | null): Error {
  if (error instanceof StoreAwayError || error instanceof StoreRefusedError) return error;
  const text = `${error.name}: ${error.message}`;
  if (ABOUT_CREDENTIALS.test(text)) {
    return new StoreRefusedError(
      `NATS refuses these credentials, or wants some: ${text}; see --cluster-credentials`,
      { cause: error },
    );
  }
  if (missingBucket !== null && NO_BUCKET.test(text)) {
    return new StoreRefusedError(
      `this NATS server has no bucket ${missingBucket}: no process of a cluster of this name has run`,
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

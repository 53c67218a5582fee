import type { LeaseStore } from "./lease_store.ts";

/** How this cluster's part of a store is found and entered. */
export interface StoreOptions {
  /** Servers, `host:port`, in the order in which they are tried. */
  readonly servers: readonly string[];
  /** Path of the URL without its first slash: the cluster's name; for `file:` the directory. */
  readonly path: string;
  /** Limit of each call. */
  readonly timeoutMs: number;
  /** Where no process has been yet, nothing is made: calls, or the opening, are refused. Default false. */
  readonly mustExist?: boolean;
  readonly credentials: StoreCredentials;
}

/** How the store knows this client; all of it optional. */
export interface StoreCredentials {
  readonly user?: string;
  readonly password?: string;
  readonly token?: string;
  /** Seed of a NATS nkey, which starts with SU. */
  readonly nkeySeed?: string;
  /** Certificates that sign the servers', PEM; with them, connections use TLS. */
  readonly authority?: string;
}

/**
 * What the rest of the program knows of a kind of lease store before it opens one. Each kind has a
 * directory with such a record in `kind.ts`, and a line in `stores.ts`. The record holds metadata only;
 * `open` imports the implementation when it is called.
 */
export interface StoreKind {
  /** Before the colon of the URL. */
  readonly scheme: string;
  /** How its URL is written, for error messages and help. */
  readonly form: string;
  /** Port of servers that are written without one; null: the store has no servers, and the URL has a path alone. */
  readonly defaultPort: number | null;
  /** Credentials that it takes. */
  readonly credentials: readonly (keyof StoreCredentials)[];
  /**
   * Does not wait for the servers: calls are rejected while they are away.
   * @throws {UsageError} the options cannot work
   */
  open(options: StoreOptions): Promise<LeaseStore>;
}

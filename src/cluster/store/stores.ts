/** The register of lease stores. `../README.md` says how to add one. */
import { UsageError } from "../../core/errors.ts";
import { etcd } from "./etcd/kind.ts";
import { file } from "./file/kind.ts";
import type { LeaseStore } from "./lease_store.ts";
import { nats } from "./nats/kind.ts";
import type { StoreCredentials, StoreKind } from "./store_kind.ts";

/** Every kind of lease store there is. */
export const leaseStores: readonly StoreKind[] = [
  etcd,
  nats,
  file,
];

/** Time limit of a call, if nobody says otherwise: half of the default lease. */
export const DEFAULT_CALL_TIMEOUT_MS = 500;
/** Cluster's name in stores that serve several. */
const DEFAULT_CLUSTER = "llumnix";
/** A name that every store takes as bucket, prefix or directory. */
const CLUSTER_NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;
const MAX_SERVERS = 16;

/** A cluster's URL taken apart. */
export interface StorePlace {
  readonly kind: StoreKind;
  readonly servers: readonly string[];
  readonly path: string;
}

/**
 * Takes the URL of a cluster apart: `etcd://10.0.0.1,10.0.0.2:2379/blue`, `file:/run/llumnix`.
 * @throws {UsageError} it is none
 */
export function parseStoreUrl(
  url: string,
  register: readonly StoreKind[] = leaseStores,
): StorePlace {
  const wrong = (why: string) => {
    const forms = register.map(({ form }) => form).join(", ");
    const shown = url.replace(/^([^:]*:(?:\/\/)?).*@/, "$1***@"); // the message goes to logs
    return new UsageError(`"${shown}" is not the URL of a cluster: ${why}; expected ${forms}`);
  };
  const colon = url.indexOf(":");
  const kind = register.find(({ scheme }) => scheme === url.slice(0, colon));
  if (kind === undefined) throw wrong(colon < 0 ? "it has no scheme" : "the scheme is not known");
  const rest = url.slice(colon + 1);
  if (kind.defaultPort === null) {
    const path = rest.replace(/^\/\/(?=\/)/, "");
    if (!path.startsWith("/")) throw wrong("the path has to be absolute");
    return { kind, servers: [], path };
  }
  if (rest.includes("@")) {
    throw wrong(
      "credentials in a URL would be seen by every user of this host; give them in a file",
    );
  }
  const found = /^\/\/([^/]*)(?:\/([^/]*))?\/?$/.exec(rest);
  if (found === null) throw wrong("it has no servers");
  const servers = found[1].split(",").map((written) => {
    const server = serverOf(written, kind.defaultPort!);
    if (server === null) throw wrong(`"${written}" is not HOST or HOST:PORT`);
    return server;
  });
  if (servers.length > MAX_SERVERS) throw wrong(`more than ${MAX_SERVERS} servers`);
  const path = found[2] || DEFAULT_CLUSTER;
  if (!CLUSTER_NAME.test(path)) {
    throw wrong(`the cluster's name "${path}" has to be up to 63 letters, digits, "_" and "-"`);
  }
  return { kind, servers, path };
}

/** Null if it is neither HOST nor HOST:PORT. */
function serverOf(written: string, defaultPort: number): string | null {
  const found = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(written);
  if (found === null) return null;
  const port = Number(found[2] ?? defaultPort);
  return port >= 1 && port <= 65535 ? `${found[1]}:${port}` : null;
}

/**
 * Opens the store of a cluster. Does not wait for its servers.
 * @throws {UsageError} the URL or the credentials are wrong
 */
export async function openLeaseStore(
  url: string,
  options: {
    readonly timeoutMs?: number;
    /** See {@linkcode StoreOptions}. */
    readonly mustExist?: boolean;
    readonly credentials?: StoreCredentials;
    /** Kinds to choose from instead. */
    readonly register?: readonly StoreKind[];
  } = {},
): Promise<LeaseStore> {
  const { kind, servers, path } = parseStoreUrl(url, options.register);
  const { credentials = {}, timeoutMs = DEFAULT_CALL_TIMEOUT_MS, mustExist } = options;
  const given = Object.entries(credentials).filter(([, value]) => value !== undefined);
  const strange = given.find(([name]) => !(kind.credentials as readonly string[]).includes(name));
  if (strange !== undefined) {
    throw new UsageError(
      `${kind.scheme}: takes no ${strange[0]}; it takes ${
        kind.credentials.join(", ") || "no credentials"
      }`,
    );
  }
  return await kind.open({ servers, path, timeoutMs, mustExist, credentials });
}

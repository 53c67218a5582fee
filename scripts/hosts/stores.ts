/** Real lease stores on the hosts of a test: etcd and NATS JetStream, with one server or three. */
import { join } from "node:path";
import { openLeaseStore } from "../../src/cluster/store/stores.ts";
import {
  findServer,
  type Found,
  pathOf,
  ServerProcess,
  whyMissing,
} from "../../test/cluster/store/servers.ts";
import type { HostNetwork } from "./network.ts";

export type StoreName = "etcd" | "nats";

/** The name of the cluster, which is also that of JetStream's bucket. */
const CLUSTER = "hosts";
/** A JetStream cluster elects for up to 9 s, and longer on a busy machine. */
const START_LIMIT_MS = 60_000;
const POLL_MS = 50;

/** Where a server is, and where the others are. */
interface Place {
  readonly host: number;
  readonly directory: string;
  /** By host; more than one: the servers replicate. */
  readonly addresses: ReadonlyMap<number, string>;
}

interface ServerKind {
  readonly program: Found;
  readonly args: (place: Place) => readonly string[];
  /** Whether the server of a host leads the others. */
  readonly leads: (address: string, host: number) => Promise<boolean>;
}

const kinds: Record<StoreName, ServerKind> = {
  etcd: {
    program: findServer("etcd"),
    args({ host, directory, addresses }) {
      const at = addresses.get(host), name = `s${host}`;
      const peers = [...addresses].map(([one, address]) => `s${one}=http://${address}:2380`);
      return [
        ...["--name", name, "--data-dir", directory, "--log-level", "error"],
        ...["--listen-client-urls", `http://${at}:2379`],
        ...["--advertise-client-urls", `http://${at}:2379`],
        ...["--listen-peer-urls", `http://${at}:2380`],
        ...["--initial-advertise-peer-urls", `http://${at}:2380`],
        ...["--initial-cluster", peers.join(",")],
        // A round trip here is far below what the defaults are made for.
        ...["--heartbeat-interval", "50", "--election-timeout", "500"],
      ];
    },
    async leads(address) {
      const url = `http://${address}:2379/v3/maintenance/status`;
      const status = await (await fetch(url, { method: "POST", body: "{}" })).json();
      return status.leader === status.header.member_id;
    },
  },
  nats: {
    program: findServer("nats-server"),
    args({ host, directory, addresses }) {
      const at = addresses.get(host)!;
      const routes = [...addresses.values()].map((address) => `nats-route://${address}:6222`);
      const cluster = ["--cluster_name", CLUSTER, "--cluster", `nats-route://${at}:6222`];
      return [
        ...["--name", `s${host}`, "--addr", at, "--port", "4222", "--http_port", "8222"],
        ...["--jetstream", "--store_dir", directory],
        ...(addresses.size > 1 ? [...cluster, "--routes", routes.join(",")] : []),
      ];
    },
    async leads(address, host) {
      const url = `http://${address}:8222/jsz?streams=1&accounts=1`;
      const { account_details: [account] } = await (await fetch(url)).json();
      const stream = account.stream_detail.find((one: { name: string }) =>
        one.name === `KV_llumnix-${CLUSTER}`
      );
      return stream.cluster === undefined || stream.cluster.leader === `s${host}`;
    },
  },
};

/** Why a store cannot run here; null if it can. */
export function storeProblem(name: StoreName): string | null {
  return whyMissing(kinds[name].program);
}

/** The servers of a store, one on each of some hosts. */
export class StoreServers implements AsyncDisposable {
  readonly #servers = new Map<number, ServerProcess>();
  readonly #directory = Deno.makeTempDirSync({ prefix: "llumnix-store-" });

  private constructor(readonly name: StoreName, private readonly network: HostNetwork) {}

  /** Starts them, and waits until the store answers. */
  static async start(
    name: StoreName,
    network: HostNetwork,
    hosts: readonly number[],
  ): Promise<StoreServers> {
    const store = new StoreServers(name, network);
    const { program, args: argsOf } = kinds[name];
    const addresses = new Map(hosts.map((host) => [host, network.addressOf(host)]));
    for (const host of hosts) {
      const directory = join(store.#directory, `s${host}`);
      const [command, ...args] = [
        ...network.launcherOf(host),
        ...[pathOf(program), ...argsOf({ host, directory, addresses })],
      ];
      store.#servers.set(host, new ServerProcess(command, args));
    }
    try {
      for (const server of store.#servers.values()) server.start();
      await store.#untilAnswering();
      return store;
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** For `--cluster`. */
  get url(): string {
    const { name, network } = this;
    const addresses = [...this.#servers.keys()].map((host) => network.addressOf(host));
    return `${name}://${addresses.join(",")}/${CLUSTER}`;
  }

  async kill(host: number): Promise<void> {
    await this.#servers.get(host)!.stop();
  }

  /** The host whose server leads the others. */
  async leader(): Promise<number> {
    for (;;) {
      for (const host of this.#servers.keys()) {
        const leads = kinds[this.name].leads(this.network.addressOf(host), host);
        if (await leads.catch(() => false)) return host;
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers.values()) await server.stop();
    await Deno.remove(this.#directory, { recursive: true });
  }

  async #untilAnswering(): Promise<void> {
    const store = await openLeaseStore(this.url, { timeoutMs: 3_000 });
    const untilMs = performance.now() + START_LIMIT_MS;
    try {
      for (;;) {
        const error = await store.get("leader").then(() => null, (error: Error) => error);
        if (error === null) return;
        if (performance.now() > untilMs) throw new Error(`no store: ${error.message}`);
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } finally {
      await store.close();
    }
  }
}

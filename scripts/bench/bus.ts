/**
 * What encryption costs: the round trip of a small call and the throughput of large payloads over Unix
 * sockets, plain TCP and TLS, by turns within one run.
 */
import { openBus } from "../../src/bus/open_bus.ts";
import type { Bus, Peer } from "../../src/bus/bus.ts";
import { percentile, printTable } from "./table.ts";

const rounds = 3;
const numCalls = 2_000;
const payloadBytes = 1 << 20;
const numPayloads = 200;
/** Payloads under way at a time, as in a migration. */
const window = 2;

interface Transport {
  readonly name: string;
  readonly bus: Bus;
  readonly address: string;
}

interface Figures {
  readonly latenciesMs: number[];
  readonly connectMs: number[];
  readonly mbPerSecond: number[];
}

export async function benchBus(): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const clusterKey = crypto.getRandomValues(new Uint8Array(32));
  const transports: Transport[] = [
    { name: "unix", bus: openBus(), address: `unix:${directory}/bench.sock` },
    { name: "tcp", bus: openBus({ clusterKey: "insecure" }), address: "tcp:127.0.0.1:0" },
    { name: "tls", bus: openBus({ clusterKey }), address: "tcp:127.0.0.1:0" },
  ];
  const figures = transports.map(() => ({ latenciesMs: [], connectMs: [], mbPerSecond: [] }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, transport] of transports.entries()) await measure(transport, figures[i]);
  }
  printTable(
    `Bus: calls and ${payloadBytes >> 20} MiB payloads, both ends in one process`,
    transports.map(({ name }, i) => ({
      transport: name,
      "connect ms": percentile(figures[i].connectMs, 50).toFixed(2),
      "call P50 us": (1000 * percentile(figures[i].latenciesMs, 50)).toFixed(0),
      "call P99 us": (1000 * percentile(figures[i].latenciesMs, 99)).toFixed(0),
      "MB/s": percentile(figures[i].mbPerSecond, 50).toFixed(0),
    })),
  );
  Deno.removeSync(directory, { recursive: true });
}

async function measure({ bus, address }: Transport, figures: Figures): Promise<void> {
  const listener = await bus.listen(address, {
    calls: { ping: () => ({ data: null }), migrate_blocks: () => ({ data: null }) },
  });
  const startMs = performance.now();
  const peer = await bus.connect(listener.address, {});
  figures.connectMs.push(performance.now() - startMs);
  for (let i = 0; i < numCalls; i++) {
    const sentMs = performance.now();
    await peer.call("ping", { data: null });
    figures.latenciesMs.push(performance.now() - sentMs);
  }
  figures.mbPerSecond.push(await throughput(peer));
  await peer.close();
  await listener.close();
}

async function throughput(peer: Peer): Promise<number> {
  const data = { migrationId: "m", blocks: [0], firstLayer: 0, numLayers: 1 };
  const payload = new Uint8Array(payloadBytes);
  const startMs = performance.now();
  const send = async () => {
    for (let i = 0; i < numPayloads / window; i++) {
      await peer.call("migrate_blocks", { data, payload });
    }
  };
  await Promise.all(Array.from({ length: window }, send));
  return numPayloads * payloadBytes / 1e3 / (performance.now() - startMs);
}

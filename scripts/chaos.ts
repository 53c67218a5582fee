/**
 * Kills instances while requests move between them, compares every stream with that of a quiet run,
 * and tells in which phases of a migration the kills fell.
 *
 *   deno run -A scripts/chaos.ts [KILLS] [SEED] [BACKEND]
 *
 * Runs the built executable (`deno task build`). Exit code 1 if a stream differs or something is left.
 */
import type { Peer } from "../src/bus/bus.ts";
import { openBus } from "../src/bus/open_bus.ts";
import type { NumberedEvent } from "../src/core/protocol/monitoring.ts";
import { Random } from "../src/core/random.ts";
import { quietStreams } from "../test/e2e/chaos.ts";
import {
  assertSameStreams,
  type Cluster,
  restless,
  servingInstances,
  startCluster,
  waitUntilEmpty,
  waitUntilReady,
} from "../test/e2e/cluster.ts";
import { signalIfThere } from "../test/e2e/harness.ts";
import { runStream, variedRequests } from "../test/e2e/streams.ts";

const NUM_INSTANCES = 3;
const NUM_STREAMS = 12;
const TOKENS_PER_STREAM = 600;
/** A kill comes this long after a migration was seen to start, at most: longer than most take. */
const MAX_DELAY_MS = 12;
const QUIET_MS = 300;

/** Follows the migrations of a cluster, and kills one end of them. */
class Watcher {
  readonly #peer: Peer;
  #next = 0;
  #committed = 0;
  /** Migrations whose source or destination was killed meanwhile, by the phase that the source tells. */
  readonly #hits = new Map<string, number>();
  /** The killed instances. */
  readonly #killed = new Set<string>();

  private constructor(peer: Peer) {
    this.#peer = peer;
  }

  static async open({ managerAddress }: Cluster): Promise<Watcher> {
    return new Watcher(await openBus({}).connect(managerAddress, {}));
  }

  /** Waits until a migration starts, and kills its source or its destination a little later. */
  async killOne(random: Random): Promise<void> {
    await this.#take(); // what happened since the last kill
    while (!isDone) {
      const started = (await this.#take()).filter(({ type }) => type === "migration_started").at(
        -1,
      );
      if (started?.type !== "migration_started") {
        await sleep(1);
        continue;
      }
      const instanceId = random.uniform() < 0.3 ? started.sourceId : started.destinationId;
      const instances = await servingInstances(cluster);
      const victim = instances.find((one) => one.instanceId === instanceId);
      if (instances.length < 2 || victim === undefined) continue;
      await sleep(random.uniform() * MAX_DELAY_MS);
      signalIfThere(victim.pid, "SIGKILL");
      this.#killed.add(instanceId);
      await sleep(QUIET_MS);
      await this.#take();
      return;
    }
  }

  get summary(): string {
    const hits = [...this.#hits].sort().map(([phase, count]) => `${phase} ${count}`);
    return `${this.#committed} migrations committed; ended by a kill: ${hits.join(", ") || "none"}`;
  }

  async close(): Promise<void> {
    await this.#peer.close();
  }

  async #take(): Promise<readonly NumberedEvent[]> {
    const taken: NumberedEvent[] = [];
    for (let hasMore = true; hasMore;) {
      const { data } = await this.#peer.call("cluster_events", { data: { after: this.#next } });
      this.#next = data.next;
      hasMore = data.hasMore;
      for (const event of data.events) {
        taken.push(event);
        this.#count(event);
      }
    }
    return taken;
  }

  #count(event: NumberedEvent): void {
    if (event.type !== "migration_ended") return;
    if (event.outcome === "committed") this.#committed++;
    const ofKilled = this.#killed.has(event.sourceId)
      ? "source"
      : this.#killed.has(event.destinationId)
      ? "destination"
      : null;
    if (event.outcome === "committed" || event.outcome === "nothing" || ofKilled === null) return;
    // A source that was killed reports nothing.
    const phase = event.outcome === "unanswered" ? "not reported" : event.phase;
    const key = `${ofKilled} in ${phase}`;
    this.#hits.set(key, (this.#hits.get(key) ?? 0) + 1);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const [kills, seed] = [Number(Deno.args[0] ?? 100), Number(Deno.args[1] ?? 1)];
const backend = Deno.args[2] ?? "gloo";
if (!Number.isSafeInteger(kills) || kills < 1 || !Number.isSafeInteger(seed)) {
  console.error(`${Deno.args.join(" ")}: expected a number of kills, a seed and a backend`);
  Deno.exit(2);
}
const requests = variedRequests(NUM_STREAMS, TOKENS_PER_STREAM);
const quiet = await quietStreams(requests);
await using cluster = await startCluster(NUM_INSTANCES, [
  ...restless,
  ...["--migration-backend", backend, "--instance-timeout", "3"],
]);
const watcher = await Watcher.open(cluster);
let isDone = false, numStreams = 0;
// All streams of a round run at once; the next round starts when they have ended.
const load = (async () => {
  while (!isDone) {
    assertSameStreams(await Promise.all(requests.map((one) => runStream(cluster.url, one))), quiet);
    numStreams += NUM_STREAMS;
  }
})();
load.catch(() => isDone = true);
const random = new Random(seed);
for (let kill = 1; kill <= kills && !isDone; kill++) {
  await watcher.killOne(random);
  await waitUntilReady(cluster);
  if (kill % 10 === 0) console.log(`${kill} kills, ${numStreams} streams; ${watcher.summary}`);
}
isDone = true;
await load;
await waitUntilEmpty(cluster, NUM_INSTANCES);
await watcher.close();
console.log(`ok: ${kills} kills, ${numStreams} streams, each equal to that of the quiet run`);
console.log(watcher.summary);

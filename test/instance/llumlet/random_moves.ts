/** Random requests, migrations, aborts and faults of the network, with everything verified always. */
import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import type { AbortNotice } from "../../../src/core/protocol/generate.ts";
import type { RequestMigrationPolicy } from "../../../src/core/protocol/migration.ts";
import { generateRequest } from "../support.ts";
import { type Followed, type InstanceShape, type TestInstance, World } from "./world.ts";

const POLICIES: readonly RequestMigrationPolicy[] = ["LCR", "SR", "LR", "FCW", "FCWSR"];
const NAMES = ["a", "b", "c"];
/** How long something happens; then everything is healed and has to come to an end. */
const ACTIVE_MS = 4_000;
/** Longer than every deadline and lease of a migration. */
const SETTLED_MS = 40_000;

/** How often something happened. */
export type Counts = Record<string, number>;

export async function simulate(seed: number): Promise<Counts> {
  return await new RandomMoves(seed).run();
}

class RandomMoves {
  readonly counts: Counts = {};
  readonly #random: Random;
  readonly #world: World;
  /** Gone for good, with what they had. */
  readonly #dead = new Set<TestInstance>();
  readonly #paused = new Set<TestInstance>();
  readonly #lost = new Set<string>();
  readonly #aborted = new Set<string>();
  /** Highest epoch that the API server has seen. */
  readonly #epochs = new Map<string, number>();
  /** Where that came from. */
  readonly #owners = new Map<string, TestInstance>();
  #numRequests = 0;
  #ordersUnderWay = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.#world = new World(seed);
    this.#world.onOutput = (instance, followed) => this.#settleOwner(instance, followed);
  }

  get #alive(): TestInstance[] {
    return [...this.#world.instances.values()].filter((one) => !this.#dead.has(one));
  }

  async run(): Promise<Counts> {
    for (const name of NAMES) {
      await this.#world.connect(await this.#world.add(name, this.#shape()));
    }
    const endMs = this.#world.clock.nowMs() + ACTIVE_MS;
    while (this.#world.clock.nowMs() < endMs) {
      this.#act();
      await this.#pass(this.#random.below(60));
    }
    this.#heal();
    await this.#pass(SETTLED_MS);
    this.#checkEnd();
    return this.counts;
  }

  #shape(): InstanceShape {
    const random = this.#random;
    const stepMs = 2 + random.below(20);
    return {
      numBlocks: 20 + random.below(40),
      numSwapBlocks: random.below(2) * 30,
      config: {
        maxNumSeqs: 2 + random.below(5),
        preemptionMode: random.below(2) === 0 ? "recompute" : "swap",
      },
      stepMs: ({ handles }) => stepMs * (0.5 + random.uniform()) + handles.length / 4,
      blockMs: 0.1 + random.uniform() * 8,
      limits: { lastStageMaxBlocks: 1 + random.below(4), maxStages: 1 + random.below(8) },
      timeouts: {
        answerMs: 200 + random.below(400),
        stageMs: 200 + random.below(800),
        settleMs: 300 + random.below(1_000),
        leaseMs: 2_000,
      },
    };
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  #act(): void {
    const dice = this.#random.below(100);
    if (dice < 30) this.#generate();
    else if (dice < 75) this.#migrate();
    else if (dice < 82) this.#abort();
    else if (dice < 87) this.#breakConnections();
    else if (dice < 92) this.#partition();
    else if (dice < 95) this.#pause();
    else if (dice < 96) this.#kill();
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#random.below(from.length)];
  }

  #generate(): void {
    const random = this.#random;
    const id = `r${this.#numRequests++}`;
    const params = { maxTokens: 1 + random.below(70), seed: random.below(1e6) };
    const request = generateRequest(id, 1 + random.below(40), params, {
      arrivalMs: this.#world.clock.nowMs() - random.below(50),
      ...(random.below(5) === 0 && { expectedSteps: 1 }),
    });
    const instance = this.#pick(this.#alive);
    this.#world.follow(request);
    const generating = this.#world.peer(instance).call("generate", { data: request });
    generating.catch(() => this.#lost.add(id)); // not taken, or nobody knows
  }

  #migrate(): void {
    const [source, destination] = [this.#pick(this.#alive), this.#pick(this.#alive)];
    if (source === destination || this.#paused.has(source)) return;
    const order = this.#world.order(source, destination, { policy: this.#pick(POLICIES) });
    this.#ordersUnderWay++;
    order.then((report) => {
      this.#ordersUnderWay--;
      this.#count(report.outcome);
      if (report.outcome === "committed" && report.stages > 1) this.#count("in stages");
      if (report.reason.includes("did not say")) this.#count("taken back");
    });
  }

  /** The client goes: the API server tells whoever it thinks has it, and who comes up later. */
  #abort(): void {
    const open = [...this.#world.requests.values()].filter(({ finishes }) => finishes.length === 0);
    if (open.length === 0) return;
    const { requestId } = this.#pick(open).request;
    this.#aborted.add(requestId);
    this.#count("client abort");
    for (const instance of this.#alive) this.#tell(instance, { requestIds: [requestId] });
  }

  #breakConnections(): void {
    const [a, b] = [this.#pick(this.#alive), this.#pick(this.#alive)];
    if (a === b) return;
    this.#count("break");
    this.#world.network.breakConnections(a.name, b.name);
  }

  /** In one direction or both, for a while. */
  #partition(): void {
    const [a, b] = [this.#pick(this.#alive).name, this.#pick(this.#alive).name];
    if (a === b) return;
    this.#count("partition");
    const { network, clock } = this.#world;
    network.block(a, b);
    if (this.#random.below(2) === 0) network.block(b, a);
    clock.after(this.#random.below(3_000), () => {
      network.heal(a, b);
      network.heal(b, a);
    });
  }

  #pause(): void {
    const instance = this.#pick(this.#alive);
    if (this.#paused.has(instance)) return;
    this.#count("pause");
    this.#paused.add(instance);
    this.#world.network.pause(instance.name);
    this.#world.clock.after(this.#random.below(3_000), () => this.#resume(instance));
  }

  #resume(instance: TestInstance): void {
    if (!this.#paused.delete(instance) || this.#dead.has(instance)) return;
    this.#world.network.resume(instance.name);
  }

  #kill(): void {
    if (this.#dead.size > 0) return;
    const instance = this.#pick(this.#alive);
    this.#count("kill");
    this.#dead.add(instance);
    for (const id of this.#world.requests.keys()) {
      // Its last output may have been under way.
      if (instance.engine.has(id) || this.#owners.get(id) === instance) this.#lost.add(id);
    }
    this.#world.network.kill(instance.name);
  }

  #heal(): void {
    for (const a of this.#alive) {
      for (const b of this.#alive) this.#world.network.heal(a.name, b.name);
      this.#resume(a);
    }
  }

  /** As an API server does: a higher epoch is right, and others are told to let the request go. */
  #settleOwner(instance: TestInstance, { request: { requestId } }: Followed): void {
    const followed = this.#world.requests.get(requestId)!;
    const { epoch = 0 } = followed.outputs.at(-1)!;
    const known = this.#epochs.get(requestId) ?? -1;
    if (this.#aborted.has(requestId)) this.#tell(instance, { requestIds: [requestId] });
    if (epoch < known) this.#tell(instance, { requestIds: [requestId], upToEpoch: epoch });
    if (epoch <= known) return;
    this.#epochs.set(requestId, epoch);
    this.#owners.set(requestId, instance);
    for (const other of this.#alive) {
      if (other !== instance) this.#tell(other, { requestIds: [requestId], upToEpoch: epoch - 1 });
    }
  }

  #tell(instance: TestInstance, notice: AbortNotice): void {
    if (!this.#dead.has(instance)) this.#world.peer(instance).notify("abort", { data: notice });
  }

  /** Lets time pass, and verifies everything at each event of it. */
  async #pass(delayMs: number): Promise<void> {
    let isOver = false;
    this.#world.clock.after(delayMs, () => isOver = true);
    await this.#world.until(() => {
      this.#check();
      return isOver;
    });
  }

  #check(): void {
    const owners = new Map<string, number[]>();
    for (const { engine, fatal } of this.#alive) {
      assert.deepEqual(fatal, []);
      engine.check();
      for (const id of this.#world.requests.keys()) {
        const epoch = engine.epochOf(id);
        if (epoch !== null) owners.set(id, [...owners.get(id) ?? [], epoch]);
      }
    }
    for (const [id, epochs] of owners) {
      assert.equal(new Set(epochs).size, epochs.length, `${id} has two owners of one epoch`);
    }
  }

  #checkEnd(): void {
    assert.equal(this.#ordersUnderWay - this.#dead.size <= 0, true, "an order was never answered");
    for (const [id, followed] of this.#world.requests) {
      followed.checkTokens();
      if (this.#aborted.has(id) || this.#lost.has(id)) continue;
      this.#count("request");
      // An old owner may have finished it too: the epochs say which of the ends counts.
      const best = followed.finishes.filter(({ epoch = 0 }) => epoch === this.#epochs.get(id));
      assert.equal(best.length, 1, `${id} has ${best.length} ends of its last owner`);
      const { reason, error } = best[0].finish!;
      if (reason === "error") assert.match(error!.message, /KV blocks/, id);
      else assert.equal(reason, "length", id);
      if (reason === "length") {
        const { request: { params, promptTokenIds }, tokens } = followed;
        assert.equal(tokens.length, Math.min(params.maxTokens, 256 - promptTokenIds.length), id);
      }
    }
    for (const { isEmpty, llumlet, name, engine } of this.#alive) {
      assert.ok(isEmpty, `blocks of ${name} are not free`);
      assert.ok(!llumlet.isMigrating, `${name} is still migrating`);
      assert.equal(engine.info().runningRequests + engine.info().waitingRequests, 0);
    }
  }
}

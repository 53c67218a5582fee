import type { Clock } from "../../core/clock.ts";
import type { ClusterMonitor } from "../../core/cluster.ts";
import type {
  ClusterState,
  InstanceLoad,
  MigrationEnded,
  NumberedEvent,
} from "../../core/protocol/monitoring.ts";
import { EventSums, type Sentence, sentenceFor } from "./event_words.ts";
import type { LatencyHistory } from "./latency_history.ts";
import type { FeedEvent, FeedHost, FeedInstance, FeedLeadership } from "./records.ts";

/** Events that are kept for new readers. */
const MAX_EVENTS = 100;
/** Events that come often are summed up over this time. */
const SUM_MS = 6_000;
/** Replies with events that are read in one pull; the rest comes with the next. */
const MAX_REPLIES = 8;

/** What the manager says of the cluster: instances, and events in sentences. */
export class ClusterWatch {
  #instances: readonly FeedInstance[] = [];
  #hosts: readonly FeedHost[] = [];
  #leadership: FeedLeadership | null = null;
  #events: FeedEvent[] = [];
  #lastSequence = 0;
  /** Requests that moved since the last `takeMoves`. */
  #moves: MigrationEnded[] = [];
  readonly #sums = new EventSums();
  #summedMs = -Infinity;
  #after: number | null = 0;
  #managerStartedMs: number | undefined;
  #isManagerGone = false;

  constructor(
    private readonly monitor: ClusterMonitor,
    private readonly clock: Clock,
    private readonly history: LatencyHistory,
  ) {}

  get instances(): readonly FeedInstance[] {
    return this.#instances;
  }

  get hosts(): readonly FeedHost[] {
    return this.#hosts;
  }

  get leadership(): FeedLeadership | null {
    return this.#leadership;
  }

  /** The manager did not answer the last time. */
  get isManagerGone(): boolean {
    return this.#isManagerGone;
  }

  /** The newest last. */
  get events(): readonly FeedEvent[] {
    return this.#events;
  }

  takeMoves(): readonly MigrationEnded[] {
    const moves = this.#moves;
    this.#moves = [];
    return moves;
  }

  /** Reads what happened; with `withState` also how the instances are. Never rejects. */
  async pull(withState: boolean): Promise<void> {
    try {
      if (withState) this.#takeState(await this.monitor.state());
      await this.#pullEvents();
      if (this.#isManagerGone) this.#tell({ kind: "good", text: "The manager is back" });
      this.#isManagerGone = false;
    } catch {
      if (!this.#isManagerGone) {
        const text = "The manager does not answer: requests go to the known instances";
        this.#tell({ kind: "bad", text });
      }
      this.#isManagerGone = true;
    }
    this.#tellSums();
  }

  #takeState({ instances, hosts, leadership }: ClusterState): void {
    this.#instances = instances.map(recordOf);
    this.#hosts = hosts.map((host) => ({
      name: host.hostName,
      state: host.state,
      instances: host.instances,
      available: host.availableInstances,
    }));
    this.#leadership = leadership === undefined ? null : {
      leader: leadership.leader,
      epoch: leadership.epoch,
      storeProblem: leadership.storeProblem,
    };
  }

  async #pullEvents(): Promise<void> {
    for (let i = 0; i < MAX_REPLIES; i++) {
      const reply = await this.monitor.events({
        after: this.#after,
        managerStartedMs: this.#managerStartedMs,
      });
      this.#after = reply.next;
      this.#managerStartedMs = reply.managerStartedMs;
      for (const event of reply.events) this.#note(event);
      if (!reply.hasMore) return;
    }
  }

  #note(event: NumberedEvent): void {
    const sentence = sentenceFor(event);
    if (sentence !== null) this.#tell(sentence, event.atMs);
    this.#sums.add(event);
    if (event.type === "preempted") this.history.notePreemptions(event.count);
    if (event.type === "resumed") this.history.noteResumed();
    if (event.type !== "migration_ended" || event.outcome !== "committed") return;
    this.history.noteMigration(event.downtimeMs);
    this.#moves.push(event);
  }

  #tellSums(): void {
    const nowMs = this.clock.nowMs();
    if (nowMs - this.#summedMs < SUM_MS) return;
    const sentences = this.#sums.take();
    for (const sentence of sentences) this.#tell(sentence);
    if (sentences.length > 0) this.#summedMs = nowMs;
  }

  #tell({ kind, text }: Sentence, atMs = this.clock.nowMs()): void {
    this.#lastSequence++;
    this.#events.push({ seq: this.#lastSequence, atMs: Math.round(atMs), kind, text });
    if (this.#events.length > MAX_EVENTS) this.#events.shift();
  }
}

function recordOf(instance: InstanceLoad): FeedInstance {
  const { load } = instance;
  return {
    id: instance.instanceId,
    type: instance.instanceType,
    state: instance.state,
    host: instance.hostName,
    totalBlocks: instance.totalBlocks,
    usedBlocks: instance.usedBlocks,
    load: typeof load === "number" ? Math.round(load * 1000) / 1000 : load,
    running: instance.runningRequests,
    waiting: instance.waitingRequests,
    preempted: instance.killedRequests,
  };
}

import { BasePeer } from "../../bus/base_peer.ts";
import type { BusLimits } from "../../bus/bus.ts";
import { type Frame, frameSize } from "../../bus/outbox.ts";
import type { AnyService } from "../../bus/transport.ts";
import type { NodeClock } from "../clock/node_clock.ts";
import type { SimNetwork } from "./sim_bus.ts";

/** How long a closing end waits until the other end has received everything. */
const LINGER_MS = 2_000;
/** A late message is late by at most this many mean delays. */
const LATE_FACTOR = 10;

/** One end of a connection to open. */
interface End {
  readonly node: string;
  readonly clock: NodeClock;
  readonly service: AnyService;
  readonly remote: string;
}

/** Two peers and the streams between them. */
export class Connection {
  readonly near: SimPeer;
  readonly far: SimPeer;
  #cancelKeepAlive: (() => void) | null = null;

  constructor(private readonly network: SimNetwork, near: End, far: End) {
    this.near = new SimPeer(near, network.limits);
    this.far = new SimPeer(far, network.limits);
    this.near.attach(new Stream(network, this.near, this.far), () => this.#peerEnded());
    this.far.attach(new Stream(network, this.far, this.near), () => this.#peerEnded());
  }

  touches(node: string): boolean {
    return this.near.node === node || this.far.node === node;
  }

  pump(): void {
    this.near.stream.pump();
    this.far.stream.pump();
  }

  /** The process of one end has ended: some of its messages still arrive, then the other end notices. */
  breakFrom(node: string, reason: string): void {
    const [dead, other] = this.near.node === node ? [this.near, this.far] : [this.far, this.near];
    dead.hasEnded = true;
    other.stream.cut();
    dead.stream.cutWithin();
    dead.stream.pushBreak(reason);
    this.#peerEnded();
  }

  breakBoth(reason: string): void {
    for (const peer of [this.near, this.far]) peer.stream.cut();
    for (const peer of [this.near, this.far]) peer.stream.pushBreak(reason);
  }

  /** A direction is blocked. Unless it is open again in time, both ends give the connection up. */
  startKeepAlive(): void {
    const { clock, config: { keepAliveMs }, random } = this.network;
    this.#cancelKeepAlive ??= clock.after(keepAliveMs, () => {
      this.#cancelKeepAlive = null;
      const { near, far } = this;
      const passes = this.network.canPass(near.node, far.node) &&
        this.network.canPass(far.node, near.node);
      if (passes) return;
      for (const peer of [near, far]) {
        peer.stream.cut();
        // Each end notices by itself, and not at the same time.
        peer.breakAfter(random.uniform() * keepAliveMs / 2, "no answer: timed out");
      }
    });
  }

  #peerEnded(): void {
    if (!this.near.hasEnded || !this.far.hasEnded) return;
    this.#cancelKeepAlive?.();
    this.network.forget(this);
  }
}

interface FrameParcel {
  readonly kind: "frame";
  readonly frame: Frame;
  /** The frame has arrived before. */
  readonly isRepetition: boolean;
}

/** A frame, an end or a break on its way from one peer to the other. */
type Parcel =
  & { readonly dueMs: number }
  & (
    | FrameParcel
    | { readonly kind: "end"; readonly delivered: () => void }
    | { readonly kind: "break"; readonly reason: string }
  );

type ParcelContent = Parcel extends infer P
  ? P extends Parcel ? Omit<P, "dueMs" | "isRepetition"> : never
  : never;

class Stream {
  #parcels: Parcel[] = [];
  #cancelWait: (() => void) | null = null;
  #lastDueMs = 0;
  #isCut = false;

  constructor(
    private readonly network: SimNetwork,
    private readonly from: SimPeer,
    private readonly to: SimPeer,
  ) {}

  push(content: ParcelContent): void {
    if (this.#isCut) return;
    this.#enqueue(content);
  }

  /** The other end sees the break after all messages that are under way, and nothing after it. */
  pushBreak(reason: string): void {
    this.#isCut = true;
    this.#enqueue({ kind: "break", reason });
  }

  /** All messages under way are lost, and later ones are dropped. */
  cut(): void {
    this.#isCut = true;
    this.#parcels = [];
  }

  /** A random number of the messages under way, the last ones, are lost; later ones are dropped. */
  cutWithin(): void {
    this.#isCut = true;
    this.#parcels.length = this.network.random.below(this.#parcels.length + 1);
  }

  /** Delivers the messages that are due and waits for the next, unless the direction is blocked. */
  pump(): void {
    if (this.#cancelWait || this.#parcels.length === 0) return;
    if (!this.#canPass(this.#parcels[0])) return;
    const { clock } = this.network;
    this.#cancelWait = clock.after(this.#parcels[0].dueMs - clock.nowMs(), () => {
      this.#cancelWait = null;
      if (this.#parcels.length > 0 && this.#canPass(this.#parcels[0])) this.#deliverDue();
      this.pump();
    });
  }

  #enqueue(content: ParcelContent): void {
    const { clock, random, config: { repeatChance = 0, overtakeChance = 0 } } = this.network;
    const delayMs = this.network.delayMs(this.from.node, this.to.node);
    this.#lastDueMs = Math.max(this.#lastDueMs, clock.nowMs() + delayMs);
    if (content.kind !== "frame") {
      // It is the last: late frames arrive before it.
      this.#lastDueMs = Math.max(this.#lastDueMs, this.#parcels.at(-1)?.dueMs ?? 0);
      return this.#insert({ ...content, dueMs: this.#lastDueMs });
    }
    const isOvertaken = overtakeChance > 0 && random.uniform() < overtakeChance;
    const dueMs = this.#lastDueMs + (isOvertaken ? this.#lateByMs() : 0);
    this.#insert({ ...content, isRepetition: false, dueMs });
    if (repeatChance === 0 || random.uniform() >= repeatChance) return;
    this.#insert({ ...content, isRepetition: true, dueMs: this.#lastDueMs + this.#lateByMs() });
  }

  #lateByMs(): number {
    const { random, config: { meanDelayMs } } = this.network;
    return LATE_FACTOR * meanDelayMs * random.uniform();
  }

  #insert(parcel: Parcel): void {
    let place = this.#parcels.length;
    while (place > 0 && this.#parcels[place - 1].dueMs > parcel.dueMs) place--;
    this.#parcels.splice(place, 0, parcel);
    if (place === 0) this.#stopWaiting();
    this.pump();
  }

  #stopWaiting(): void {
    this.#cancelWait?.();
    this.#cancelWait = null;
  }

  #canPass({ kind }: Parcel): boolean {
    if (this.network.isStopped(this.to.node)) return false;
    return kind === "break" || this.network.canPass(this.from.node, this.to.node);
  }

  #deliverDue(): void {
    const nowMs = this.network.clock.nowMs();
    const { onFrame } = this.network.config;
    while (this.#parcels.length > 0 && this.#parcels[0].dueMs <= nowMs) {
      const parcel = this.#parcels.shift()!;
      if (parcel.kind === "frame") {
        if (!parcel.isRepetition) this.from.taken(frameSize(parcel.frame));
        onFrame?.(this.from.node, this.to.node, parcel.frame.text);
        this.to.deliver(parcel.frame);
      } else if (parcel.kind === "end") {
        this.to.deliverEnd();
        parcel.delivered();
      } else {
        this.to.breakNow(parcel.reason);
      }
    }
  }
}

export class SimPeer extends BasePeer {
  /** All nodes are of this process. */
  override readonly pid = Deno.pid;
  readonly node: string;
  stream!: Stream;
  hasEnded = false;

  constructor(end: End, limits: BusLimits) {
    super(end.remote, end.service, limits, end.clock);
    this.node = end.node;
  }

  attach(stream: Stream, onEnded: () => void): void {
    this.stream = stream;
    this.closed.then(() => {
      this.hasEnded = true;
      onEnded();
    });
  }

  /** The other end has received `bytes`. */
  taken(bytes: number): void {
    this.outbox.release(bytes);
  }

  deliver({ text, payload }: Frame): void {
    this.receive(`[${text}]`, payload);
  }

  deliverEnd(): void {
    this.remoteEnded();
  }

  breakNow(reason: string): void {
    this.fail(reason);
  }

  breakAfter(delayMs: number, reason: string): void {
    this.clock.after(delayMs, () => this.fail(reason));
  }

  protected override wake(): void {
    for (const frame of this.outbox.takeAll()) this.stream.push({ kind: "frame", frame });
  }

  protected override drain(): Promise<void> {
    this.wake();
    return new Promise((resolve) => {
      const cancel = this.clock.after(LINGER_MS, () => {
        this.stream.cut();
        this.stream.pushBreak("connection reset");
        resolve();
      });
      const delivered = () => {
        cancel();
        resolve();
      };
      this.stream.push({ kind: "end", delivered });
    });
  }

  protected override abandon(): Promise<void> {
    this.outbox.takeAll();
    this.stream.cut();
    this.stream.pushBreak("connection reset");
    return Promise.resolve();
  }
}

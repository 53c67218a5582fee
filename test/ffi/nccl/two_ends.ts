/** Two ends of a pair in this process, over the software device, and the channel between them. */
import assert from "node:assert/strict";
import { openCuda } from "../../../ffi/cuda/open.ts";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { Nccl } from "../../../ffi/nccl/nccl.ts";
import type { NcclCalls } from "../../../ffi/nccl/pair.ts";
import { PATIENCE_MS, pause, until } from "../../patience.ts";
import type { Pair, PairModule } from "./software_nccl.ts";
import { type Counts, type Fault, SoftwareNccl } from "./software_nccl.ts";

/** More than the software NCCL sends without a receive. */
export const BLOCK_BYTES = (1 << 20) + (1 << 16);
export const BLOCKS = 8;

export type TestCuda = Pick<
  Cuda,
  | ("malloc" | "free" | "createStream" | "destroyStream")
  | ("createEvent" | "recordEvent" | "queryEvent" | "destroyEvent")
>;

/** The libraries of the software device, opened once a process. */
export class Libraries {
  readonly nccl: Nccl;
  readonly cuda: TestCuda;
  readonly faults: SoftwareNccl;

  /** @param binding of libnccl: the real one, or a mutant of it */
  constructor(folder: string, binding: typeof Nccl = Nccl) {
    this.cuda = openTestCuda(folder);
    this.nccl = binding.open({ from: folder });
    this.faults = new SoftwareNccl(this.nccl.library.path);
  }
}

function openTestCuda(folder: string): TestCuda {
  const cuda = openCuda({ from: folder });
  cuda.setDevice(0);
  return cuda;
}

/** What a transfer into this end came to. */
interface Arrival {
  readonly blocks: readonly number[];
  /** Null as long as NCCL may write the blocks. */
  isMoved: boolean | null;
}

/** One end: a pool of {@linkcode BLOCKS} blocks, and a pair. */
export class End {
  readonly #pool: bigint;
  readonly #streams: readonly [bigint, bigint];
  readonly memory: Uint8Array;
  readonly arrivals: Arrival[] = [];
  readonly pair: Pair;
  /** Changes the runs that a claim gives. */
  claimOtherBytes: number | null = null;
  /** Called when NCCL is asked to send a run, and when an event is found done. They may throw. */
  onSend = () => {};
  onEventDone = () => {};
  /** What aborts of NCCL end with, after they have aborted. */
  abortError: Error | null = null;
  /** What NCCL says of the communicators from now on. */
  asyncError: Error | null = null;
  /** The messages that this end has sent. */
  readonly sent: Record<string, unknown>[] = [];

  constructor(
    readonly module: PairModule,
    readonly libraries: Libraries,
    post: (message: Record<string, unknown>) => void,
    abortLimitMs = PATIENCE_MS,
  ) {
    const { cuda, nccl } = libraries;
    const bytes = BLOCKS * BLOCK_BYTES;
    this.#pool = cuda.malloc(bytes);
    this.#streams = [cuda.createStream(), cuda.createStream()];
    const pointer = Deno.UnsafePointer.create(this.#pool)!;
    this.memory = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes));
    this.pair = new module.NcclPair({
      nccl: this.#hooked(nccl),
      events: {
        createEvent: () => cuda.createEvent(),
        recordEvent: (event, stream) => cuda.recordEvent(event, stream),
        destroyEvent: (event) => cuda.destroyEvent(event),
        queryEvent: (event) => {
          const isDone = cuda.queryEvent(event);
          if (isDone) this.onEventDone();
          return isDone;
        },
      },
      sendStream: this.#streams[0],
      receiveStream: this.#streams[1],
      abortLimitMs,
      post: (message) => {
        const copy = JSON.parse(JSON.stringify(message));
        this.sent.push(copy);
        post(copy);
      },
      claim: (note) => this.#claim(note),
    });
  }

  /** libnccl with the hooks of this end. */
  #hooked(nccl: Nccl): NcclCalls {
    return {
      uniqueId: () => nccl.uniqueId(),
      initRank: (...args) => nccl.initRank(...args),
      asyncState: (communicator) => {
        if (this.asyncError !== null) throw this.asyncError;
        return nccl.asyncState(communicator);
      },
      groupStart: () => nccl.groupStart(),
      groupEnd: () => nccl.groupEnd(),
      send: (...args) => (this.onSend(), nccl.send(...args)),
      receive: (...args) => nccl.receive(...args),
      finalize: (communicator) => nccl.finalize(communicator),
      abort: async (communicator) => {
        await nccl.abort(communicator);
        if (this.abortError !== null) throw this.abortError;
      },
      destroy: (communicator) => nccl.destroy(communicator),
    };
  }

  #claim(note: unknown) {
    const { blocks } = note as { blocks: number[] };
    if (blocks.some((block) => block >= BLOCKS)) throw new Error("no such block");
    const arrival: Arrival = { blocks, isMoved: null };
    this.arrivals.push(arrival);
    return {
      runs: this.runs(blocks, this.claimOtherBytes ?? BLOCK_BYTES),
      release: (isMoved: boolean) => {
        assert.equal(arrival.isMoved, null, "runs were released twice");
        arrival.isMoved = isMoved;
      },
    };
  }

  runs(blocks: readonly number[], bytes = BLOCK_BYTES) {
    return blocks.map((block) => ({ address: this.#pool + BigInt(block * BLOCK_BYTES), bytes }));
  }

  /** Fills a block with the pattern of a seed. */
  fill(block: number, seed: number): void {
    const bytes = this.memory.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < words.length; i++) words[i] = (i * 2654435761 ^ seed * 40503) >>> 0;
  }

  /** Whether a block has the pattern of a seed. */
  has(block: number, seed: number): boolean {
    const bytes = this.memory.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    return words.every((word, i) => word === (i * 2654435761 ^ seed * 40503) >>> 0);
  }

  free(): void {
    const { cuda } = this.libraries;
    for (const stream of this.#streams) cuda.destroyStream(stream);
    cuda.free(this.#pool);
  }
}

/** An abort of an end that takes longer makes it dead; {@linkcode PATIENCE_MS} where nothing is said. */
export interface AbortLimits {
  readonly a?: number;
  readonly b?: number;
}

/** Both ends. A channel delivers messages in order, a turn later. */
export class TwoEnds {
  readonly a: End;
  readonly b: End;
  readonly faults: SoftwareNccl;
  /** The channel throws at the sender. */
  isLost = false;
  /** What the channel swallows: messages of these kinds. */
  readonly swallowed = new Set<string>();
  readonly #before: Counts;

  constructor(
    readonly module: PairModule,
    readonly libraries: Libraries,
    abortLimits: AbortLimits = {},
  ) {
    this.faults = libraries.faults;
    this.#before = this.faults.counts();
    this.a = new End(module, libraries, (message) => this.#carry(this.a, message), abortLimits.a);
    this.b = new End(module, libraries, (message) => this.#carry(this.b, message), abortLimits.b);
  }

  set(fault: Fault, value: number, rank?: 0 | 1): void {
    this.faults.set(fault, value, rank);
  }

  /** Sends blocks of one end to blocks of the other one. */
  async send(
    blocks: readonly number[],
    { from = this.a, to = blocks, leftMs = PATIENCE_MS, signal }: {
      from?: End;
      to?: readonly number[];
      leftMs?: number;
      signal?: AbortSignal;
    } = {},
  ): Promise<void> {
    await from.pair.send(from.runs(blocks), { note: { blocks: to }, leftMs, signal });
  }

  /** A transfer from `a` to `b` that must come over, with bytes that no transfer had before. */
  async works(leftMs = PATIENCE_MS): Promise<void> {
    const seed = ++this.#seeds;
    const sources = [0, 1, 5], targets = [3, 4, 0];
    sources.forEach((block, i) => this.a.fill(block, seed * 10 + i));
    await this.send(sources, { to: targets, leftMs });
    targets.forEach((block, i) => assert.ok(this.b.has(block, seed * 10 + i), `block ${block}`));
    assert.equal(this.b.arrivals.at(-1)?.isMoved, true);
  }

  /** Closes both ends, and checks that nothing is left of them. */
  async close(): Promise<void> {
    this.faults.reset();
    await Promise.all([this.a, this.b].map((end) => end.pair.close(PATIENCE_MS)));
    await this.assertNothingLeft();
    this.a.free();
    this.b.free();
  }

  /** Checks that what is alive is what was alive before, with some time for threads to end. */
  async assertNothingLeft(): Promise<void> {
    await until(() => this.#left().length === 0, () => `nothing is left of ${this.#left()}`);
  }

  #left(): string[] {
    const now = this.faults.counts();
    return (Object.keys(now) as (keyof Counts)[]).filter((name) => now[name] > this.#before[name])
      .map((name) => `${now[name] - this.#before[name]} ${name}`);
  }

  #seeds = 0;

  #carry(from: End, message: Record<string, unknown>): void {
    if (this.isLost) throw new Error("the channel is lost");
    if (this.swallowed.has(message.kind as string)) return;
    setTimeout(() => (from === this.a ? this.b : this.a).pair.receive(message), 0);
  }
}

/** Lets the event loop turn: what blocks it lets the test hang here. */
export async function turns(count = 5): Promise<void> {
  for (let i = 0; i < count; i++) await pause(1);
}

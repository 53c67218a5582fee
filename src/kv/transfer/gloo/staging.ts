/**
 * Transfers from and to the memory of a device: blocks go through two pinned buffers, of which the device
 * copies one while the socket has the other.
 */
import { addressOf } from "../../../../ffi/memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { type KvLayout, layerBytes } from "../../layout.ts";
import type { DevicePool, PoolRun } from "../../pool/pool.ts";
import type { TransferLimits } from "../backend.ts";
import { transferRounds } from "../rounds.ts";
import type { TransferCursor } from "../pool_cursor.ts";

/** Of one buffer, unless a layer has more: several copies of a device's best size. */
const BUFFER_BYTES = 1 << 20;

/** Runs that fill a buffer together, one after the other. */
interface Chunk {
  readonly runs: readonly PoolRun[];
  readonly byteLength: number;
}

/** A pinned buffer and where it stands. */
interface Slot {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What it holds, or will hold; null when there is nothing more for it. */
  chunk: Chunk | null;
  /** Bytes of the chunk that have passed the socket. */
  passedBytes: number;
  /** The device copies it. */
  isCopying: boolean;
}

type SlotPair = readonly [Slot, Slot];

/** The buffers of an instance's transfers, and the copies that are under way. */
export class Staging {
  readonly pool: DevicePool;
  readonly #bufferBytes: number;
  readonly #free: SlotPair[] = [];
  readonly #copies = new Map<Promise<void>, MigrationId>();

  /** @param bufferBytes of one buffer at most, for tests; a layer fits in any case */
  constructor(pool: DevicePool, bufferBytes = BUFFER_BYTES) {
    this.pool = pool;
    this.#bufferBytes = Math.max(bufferBytes, layerBytes(pool.layout));
  }

  /** Whether a copy is under way: its end comes through the thread's event loop. */
  get isCopying(): boolean {
    return this.#copies.size > 0;
  }

  /** @throws {UnavailableError} the host has not so much memory to lock */
  source(id: MigrationId, blocks: readonly number[], limits: TransferLimits): TransferCursor {
    return new StagedCursor(this, id, "read", this.#chunks(blocks, limits), this.#take());
  }

  /** @throws {UnavailableError} the host has not so much memory to lock */
  destination(id: MigrationId, blocks: readonly number[], limits: TransferLimits): TransferCursor {
    return new StagedCursor(this, id, "write", this.#chunks(blocks, limits), this.#take());
  }

  /** Resolves when no copy of this migration, or of any, is under way; null if there is none now. */
  idle(id?: MigrationId): Promise<unknown> | null {
    const found = [...this.#copies].filter(([, of]) => (id ?? of) === of).map(([copy]) => copy);
    return found.length === 0 ? null : Promise.allSettled(found);
  }

  /** Copies a slot's chunk from the device, or to it. */
  copy(id: MigrationId, direction: "read" | "write", { bytes, chunk }: Slot): Promise<void> {
    const { runs, byteLength } = chunk!;
    const copy = this.pool[direction](runs, bytes.subarray(0, byteLength));
    this.#copies.set(copy, id);
    return copy.finally(() => this.#copies.delete(copy));
  }

  /** Nothing copies them any more. */
  giveBack(pair: SlotPair): void {
    this.#free.push(pair);
  }

  #take(): SlotPair {
    const make = (): Slot => {
      const bytes = this.pool.allocateStaging(this.#bufferBytes);
      return { bytes, chunk: null, passedBytes: 0, isCopying: false };
    };
    return this.#free.pop() ?? [make(), make()];
  }

  #chunks(blocks: readonly number[], limits: TransferLimits): Chunk[] {
    return [...chunksOf(this.pool.layout, blocks, limits, this.#bufferBytes)];
  }
}

/** The bytes of a transfer in the order in which they travel, as `PoolCursor` has them. */
function* chunksOf(
  layout: KvLayout,
  blocks: readonly number[],
  limits: TransferLimits,
  bufferBytes: number,
): Generator<Chunk> {
  const bytes = layerBytes(layout);
  const most = Math.floor(bufferBytes / bytes);
  let runs: PoolRun[] = [], layers = 0;
  for (const round of transferRounds(blocks, blocks, layout.numLayers, limits)) {
    for (const { sourceBlock, numBlocks } of round.runs) {
      for (let block = sourceBlock; block < sourceBlock + numBlocks; block++) {
        for (let done = 0; done < round.numLayers;) {
          const numLayers = Math.min(round.numLayers - done, most - layers);
          runs.push({ block, firstLayer: round.firstLayer + done, numLayers });
          done += numLayers;
          layers += numLayers;
          if (layers < most) continue;
          yield { runs, byteLength: layers * bytes };
          [runs, layers] = [[], 0];
        }
      }
    }
  }
  if (layers > 0) yield { runs, byteLength: layers * bytes };
}

/** The bytes of a transfer between a device's pool and a socket. */
class StagedCursor implements TransferCursor {
  remainingBytes: number;
  readonly #staging: Staging;
  readonly #id: MigrationId;
  readonly #direction: "read" | "write";
  readonly #chunks: readonly Chunk[];
  readonly #slots: SlotPair;
  #nextChunk = 0;
  /** The slot whose bytes pass the socket now. */
  #current = 0;
  #failure: string | null = null;
  #isReleased = false;

  constructor(
    staging: Staging,
    id: MigrationId,
    direction: "read" | "write",
    chunks: readonly Chunk[],
    slots: SlotPair,
  ) {
    this.#staging = staging;
    this.#id = id;
    this.#direction = direction;
    this.#chunks = chunks;
    this.#slots = slots;
    this.remainingBytes = chunks.reduce((sum, { byteLength }) => sum + byteLength, 0);
    for (const slot of slots) this.#load(slot);
  }

  get isReady(): boolean {
    return this.#failure !== null || !this.#slots[this.#current].isCopying;
  }

  get isSettled(): boolean {
    this.#check();
    return this.remainingBytes === 0 && !this.#slots.some(({ isCopying }) => isCopying);
  }

  places(): BigUint64Array<ArrayBuffer> {
    return this.placesOf(Infinity);
  }

  placesOf(bytes: number): BigUint64Array<ArrayBuffer> {
    this.#check();
    const slot = this.#slots[this.#current];
    if (slot.chunk === null || slot.isCopying) return new BigUint64Array(0);
    const length = Math.min(bytes, slot.chunk.byteLength - slot.passedBytes);
    const address = addressOf(slot.bytes) + BigInt(slot.passedBytes);
    return BigUint64Array.of(address, BigInt(length));
  }

  advance(bytes: number): void {
    const slot = this.#slots[this.#current];
    this.remainingBytes -= bytes;
    slot.passedBytes += bytes;
    if (slot.passedBytes < slot.chunk!.byteLength) return;
    if (this.#direction === "write") this.#copy(slot, () => this.#load(slot));
    else this.#load(slot);
    this.#current = 1 - this.#current;
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    if (!this.#slots.some(({ isCopying }) => isCopying)) this.#staging.giveBack(this.#slots);
  }

  /** @throws {UnavailableError} the device failed */
  #check(): void {
    if (this.#failure !== null) throw new UnavailableError(this.#failure);
  }

  /** Gives a slot its next chunk; a source reads it at once. */
  #load(slot: Slot): void {
    slot.chunk = this.#isReleased ? null : this.#chunks[this.#nextChunk++] ?? null;
    slot.passedBytes = 0;
    if (slot.chunk !== null && this.#direction === "read") this.#copy(slot, () => {});
  }

  #copy(slot: Slot, copied: () => void): void {
    slot.isCopying = true;
    this.#staging.copy(this.#id, this.#direction, slot).then(
      copied,
      (error: Error) => this.#failure ??= error.message,
    ).finally(() => {
      slot.isCopying = false;
      const isLast = this.#isReleased && !this.#slots.some(({ isCopying }) => isCopying);
      if (isLast) this.#staging.giveBack(this.#slots);
    });
  }
}

/**
 * The memory of a paged KV cache, as migration backends see it. A pool says where its blocks are; a
 * backend says which kinds of memory it can move (`src/kv/transfer/backends.ts`). Every pool passes the
 * suite in `test/conformance/kv_pool.ts`.
 */
import type { KvLayout } from "../layout.ts";

/** Told apart by `memory`. */
export type KvPool = HostPool | DevicePool | AccountedPool;

/** Where the blocks of a pool are; `none`: they are only counted. */
export type KvMemory = KvPool["memory"];

/** A pool whose runs are views of this process's memory, which are empty where nothing is held. */
export type MappedPool = HostPool | AccountedPool;

interface PoolShape {
  readonly layout: KvLayout;
  readonly numBlocks: number;
}

/** Layers [firstLayer, firstLayer + numLayers) of one block: contiguous bytes. */
export interface PoolRun {
  readonly block: number;
  readonly firstLayer: number;
  readonly numLayers: number;
}

interface Runs {
  /**
   * The bytes of layers [firstLayer, firstLayer + numLayers) of a block, one contiguous run. A view,
   * not a copy.
   * @throws {RangeError} the pool has no such block or layer
   */
  run(block: number, firstLayer: number, numLayers: number): Uint8Array<ArrayBuffer>;
}

/** A pool in memory of this process, which stays allocated as long as the pool is used. */
export interface HostPool extends PoolShape, Runs {
  readonly memory: "host";
  /** Address of block 0. Block i starts at `address + i * blockBytes(layout)`. */
  readonly address: bigint;
}

/** A pool that counts blocks and holds nothing, of an executor without a cache: its runs are empty. */
export interface AccountedPool extends PoolShape, Runs {
  readonly memory: "none";
}

/** Where a device has its part of a pool's blocks. */
export interface PoolShard {
  /** Number of the device on this host. */
  readonly ordinal: number;
  /**
   * Device address of block 0; the host must not dereference it. Block i starts at
   * `address + i * blockBytes(shardLayout(layout))`.
   */
  readonly address: bigint;
}

/**
 * A pool in the memory of a device, or of several that have some KV heads of each block. Direct backends
 * (between devices, or from a device to the network) take the address on each device (`shardsOf`); staging
 * backends copy runs to and from buffers of the host, in pieces that their limits bound.
 *
 * The caller reads and writes only blocks that no step writes meanwhile, so that copies need not wait
 * for the step under way. A read sees what a step has written as soon as the step's promise has settled;
 * a step sees what was written if it is given to the executor after the write has resolved.
 *
 * Calls may overlap; the device carries them out in the order of the calls. A pool belongs to the thread
 * that opened it: another thread opens its own from the description (`open_pool.ts`).
 */
export interface DevicePool extends PoolShape, PoolShard {
  readonly memory: "device";
  /** What the address belongs to, named as in `--device`. */
  readonly device: string;
  /** The other devices, in their order, if blocks are divided among several. */
  readonly others?: readonly PoolShard[];
  /** Resolves with the reason once the device has hung, for good. Never rejects. */
  readonly failed?: Promise<string>;
  /**
   * Copies runs into `into`, one after the other in the order given. Resolves when they are there.
   * @throws {RangeError} the pool has no such run, or `into` is not as long as the runs together;
   *   nothing was copied
   * @throws {UnavailableError} the device failed, or the pool is closed
   */
  read(runs: readonly PoolRun[], into: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Copies `from` into runs, the inverse of {@linkcode read}. `from` stays as it is until this resolves.
   * @throws {RangeError} the pool has no such run, or `from` is not as long as the runs together;
   *   nothing was copied
   * @throws {UnavailableError} the device failed, or the pool is closed
   */
  write(runs: readonly PoolRun[], from: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Host memory that the device copies to and from fastest (page-locked); {@linkcode read} and
   * {@linkcode write} take any other memory too. It is valid until the pool is closed.
   * @throws {UnavailableError} the host has not so much memory to lock
   */
  allocateStaging(byteLength: number): Uint8Array<ArrayBuffer>;
  /** Frees the staging buffers; resolves when no copy is under way. The blocks are the executor's. */
  close(): Promise<void>;
}

/** What a pool is, as data, from which any thread of the process opens it. */
export type PoolDescription =
  | Pick<HostPool, "memory" | "layout" | "numBlocks" | "address">
  | Pick<AccountedPool, "memory" | "layout" | "numBlocks">
  | Pick<
    DevicePool,
    "memory" | "layout" | "numBlocks" | "address" | "device" | "ordinal" | "others"
  >;

/** The parts of a pool, by the order of its devices. */
export function shardsOf({ ordinal, address, others = [] }: DevicePool): PoolShard[] {
  return [{ ordinal, address }, ...others];
}

/** Resolves with the reason when a pool has failed for good; undefined for a pool that cannot. */
export function failureOf(pool: KvPool): Promise<string> | undefined {
  return pool.memory === "device" ? pool.failed : undefined;
}

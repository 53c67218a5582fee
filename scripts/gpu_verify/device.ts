/** What the programs of the sections share: the device, patterned blocks, and how they report. */
import type { Cuda } from "../../ffi/cuda/cuda.ts";
import { openCuda } from "../../ffi/cuda/open.ts";
import { KvKernels } from "../../ffi/cuda_kernels/kv.ts";
import { addressOf, nativeBuffer } from "../../ffi/memory.ts";
import { type GoalId, goalOutcomes, goalText } from "./goals.ts";

/** A block of Llama-3.1-8B: 16 tokens, 32 layers of 64 KiB. */
export const blockBytes = 2 << 20;
/** A layer's keys, or its values, in a block. */
export const runBytes = 32 << 10;

/** A figure of a section, or something that was found out. */
export interface Finding {
  readonly name: string;
  /** With its unit; or a text. */
  readonly value: string;
  /** The goal that was measured, and how far it was reached. */
  readonly goal?: GoalId;
  readonly measured?: number;
}

/** Reports a finding: a line of JSON on stdout, at once. */
export function found(name: string, value: string): void {
  console.log(JSON.stringify({ name, value } satisfies Finding));
}

export const isSoftware = Deno.env.get("GPU_VERIFY_SOFTWARE_DEVICE") === "1";

/** Reports how far a goal was reached. Nothing that the software device does counts. */
export function reached(goal: GoalId, measured: number): void {
  if (isSoftware) return;
  const [outcome] = goalOutcomes(new Map([[goal, measured]])).filter((one) => one.goal.id === goal);
  const finding = { name: `goal ${goal}`, value: goalText(outcome), goal, measured };
  console.log(JSON.stringify(finding satisfies Finding));
}

/** Ends the program if something is not as it has to be. */
export function expect(isRight: boolean, what: string): asserts isRight {
  if (isRight) return;
  console.error(`wrong: ${what}`);
  Deno.exit(1);
}

export const isShort = Deno.env.get("GPU_VERIFY_SHORT") === "1";

/** "12.3 GB/s" */
export function rateText(bytes: number, ms: number): string {
  return `${(bytes / ms / 1e6).toPrecision(3)} GB/s`;
}

/** A device, the first by default, with kernels and a stream. */
export class Device {
  readonly cuda: Cuda = openCuda();
  readonly stream: bigint;
  readonly kernels: KvKernels;
  /** How long the driver took to load the kernels. */
  readonly loadMs: number;

  constructor(ordinal = 0) {
    this.cuda.setDevice(ordinal);
    this.stream = this.cuda.createStream();
    const startMs = performance.now();
    this.kernels = KvKernels.open();
    this.loadMs = performance.now() - startMs;
  }

  /** Device memory with these bytes, for tables. It is never freed: the process ends soon. */
  table(values: BigUint64Array | Uint32Array): bigint {
    const bytes = nativeBuffer(values.byteLength);
    bytes.set(new Uint8Array(values.buffer));
    const at = this.cuda.malloc(bytes.byteLength);
    this.cuda.copy(at, addressOf(bytes), bytes.byteLength, this.stream);
    this.cuda.synchronizeStream(this.stream);
    return at;
  }

  /** Fills `blocks` contiguous blocks with the patterns of their numbers and `seed`. */
  fill(pool: bigint, blocks: number, seed: number): void {
    this.kernels.fill(this.#pattern(pool, blocks, seed), this.stream);
    this.cuda.synchronizeStream(this.stream);
  }

  /**
   * How many 16-byte vectors of the blocks are not what {@linkcode fill} wrote.
   * @param firstBlock number of the first of them
   */
  wrongVectors(pool: bigint, blocks: number, seed: number, firstBlock = 0): number {
    const wrong = this.table(new Uint32Array(blocks));
    const first = this.table(new Uint32Array(blocks).fill(0xffffffff));
    this.kernels.check(this.#pattern(pool, blocks, seed, firstBlock), wrong, first, this.stream);
    const counts = nativeBuffer(4 * blocks);
    this.cuda.copy(addressOf(counts), wrong, 4 * blocks, this.stream);
    this.cuda.synchronizeStream(this.stream);
    return new Uint32Array(counts.buffer).reduce((sum, count) => sum + count, 0);
  }

  /** Milliseconds of one run of `work`, of `repeats` after one that does not count. */
  time(repeats: number, work: () => void): number {
    work();
    this.cuda.synchronizeStream(this.stream);
    const startMs = performance.now();
    for (let i = 0; i < repeats; i++) work();
    this.cuda.synchronizeStream(this.stream);
    return (performance.now() - startMs) / repeats;
  }

  #pattern(pool: bigint, blocks: number, seed: number, firstBlock = 0) {
    const addresses = BigUint64Array.from(
      { length: blocks },
      (_, i) => pool + BigInt(i * blockBytes),
    );
    const keys = BigUint64Array.from(
      { length: blocks },
      (_, i) => BigInt(seed * 65536 + firstBlock + i + 1),
    );
    return {
      addresses: this.table(addresses),
      keys: this.table(keys),
      blocks,
      byteLength: blockBytes,
    };
  }
}

import { UsageError } from "../core/errors.ts";
import { blockBytes, type KvLayout } from "./layout.ts";

/** What the number of blocks of an instance depends on. */
export interface KvBudget {
  readonly layout: KvLayout;
  /** Free memory before the weights are loaded. */
  readonly availableBytes: number;
  /** The part of it that other instances have not claimed, which they will come to use. */
  readonly unclaimedBytes: number;
  /** Most memory that the executor can address for weights and both pools; Infinity for no limit. */
  readonly addressableBytes: number;
  readonly weightBytes: number;
  /** `--gpu-memory-utilization`: fraction of `availableBytes` that weights and cache may take. */
  readonly memoryUtilization: number;
  /** Instances that share the memory. */
  readonly hostShare: number;
  /** `--num-gpu-blocks-override` */
  readonly numBlocksOverride: number | null;
  /** `--swap-space` in GiB. */
  readonly swapSpaceGiB: number;
  /** `--preemption-mode swap`: the swap pool takes from the same memory. Otherwise it stays unused. */
  readonly usesSwap: boolean;
  readonly maxNumSeqs: number;
  readonly maxModelLen: number;
}

export interface KvCapacity {
  readonly numBlocks: number;
  readonly numSwapBlocks: number;
}

/**
 * Memory of a process besides weights and pools: the runtime's heap and code, activations, scratch of
 * the kernels. An idle instance took 45 MiB, an instance under load about 100 MiB.
 */
const PROCESS_BYTES = 128 * 2 ** 20;

/** Extra blocks, as a fraction: the scheduler keeps a watermark of 1% free, as vLLM does. */
const spareFraction = 0.02;

/**
 * Plans the blocks of the KV cache and of the swap pool. Neither gets more than `maxNumSeqs` sequences
 * of full length could use, and there is no swap pool if preemption never swaps. Weights, pools and
 * processes of all instances together fit into the available memory.
 * @throws {UsageError} the cache would not hold one sequence of `maxModelLen` tokens, or the requested
 *   sizes do not fit the memory
 */
export function planKvCache(budget: KvBudget): KvCapacity {
  const { layout, maxModelLen } = budget;
  const blocksPerSequence = Math.ceil(maxModelLen / layout.blockSize);
  const useful = Math.ceil(budget.maxNumSeqs * blocksPerSequence * (1 + spareFraction)) + 1;
  const bytes = blockBytes(layout);
  // The claims of instances that share the host by --host-share leave each its share; those of others
  // may leave less.
  const possibleBytes = Math.min(budget.availableBytes / budget.hostShare, budget.unclaimedBytes);
  const share = possibleBytes * budget.memoryUtilization;
  // In a short address space, each pool may take half of what the weights leave.
  const addressable = (budget.addressableBytes - budget.weightBytes) / 2;
  const blocksIn = (byteLength: number) =>
    Math.max(0, Math.floor(Math.min(byteLength, addressable) / bytes));
  const swapBytes = budget.usesSwap ? budget.swapSpaceGiB * 2 ** 30 : 0;
  const numSwapBlocks = Math.min(useful, blocksIn(swapBytes));
  const fixedBytes = budget.weightBytes + numSwapBlocks * bytes + PROCESS_BYTES;
  const affordable = blocksIn(share - fixedBytes);
  const numBlocks = budget.numBlocksOverride ?? Math.min(useful, affordable);
  if (numBlocks < blocksPerSequence) throw tooFewBlocks(budget, numBlocks);
  // An override may take what `--gpu-memory-utilization` leaves to others, but no more than there is.
  const possible = blocksIn(possibleBytes - fixedBytes);
  if (numBlocks > possible) throw tooManyBlocks(budget, numBlocks, possible, numSwapBlocks);
  return { numBlocks, numSwapBlocks };
}

/** Memory that an instance comes to use once its pools are full. */
export function plannedBytes(
  { layout, weightBytes }: Pick<KvBudget, "layout" | "weightBytes">,
  { numBlocks, numSwapBlocks }: KvCapacity,
): number {
  return weightBytes + (numBlocks + numSwapBlocks) * blockBytes(layout) + PROCESS_BYTES;
}

/** The memory that was free, for messages. */
function freeMemory({ availableBytes, unclaimedBytes, hostShare }: KvBudget): string {
  const claimedBytes = availableBytes - unclaimedBytes;
  const claimed = claimedBytes > 0
    ? `, of which other instances have claimed ${shownSize(claimedBytes)}`
    : "";
  return `${shownSize(availableBytes)} for ${hostShare} instance(s)${claimed}`;
}

function tooManyBlocks(
  budget: KvBudget,
  numBlocks: number,
  possible: number,
  numSwapBlocks: number,
): UsageError {
  const bytes = blockBytes(budget.layout);
  const swap = numSwapBlocks > 0 ? `, a swap pool of ${shownSize(numSwapBlocks * bytes)}` : "";
  return new UsageError(
    `A KV cache of ${numBlocks} blocks (${
      shownSize(numBlocks * bytes)
    }) does not fit. Free memory: ` +
      `${freeMemory(budget)}; each takes ` +
      `${shownSize(budget.weightBytes)} of weights${swap} and ${
        shownSize(PROCESS_BYTES)
      } for its ` +
      `process. Lower --num-gpu-blocks-override to ${possible} or less` +
      `${numSwapBlocks > 0 ? ", or --swap-space" : ""}.`,
  );
}

function tooFewBlocks(budget: KvBudget, numBlocks: number): UsageError {
  const { layout, maxModelLen, numBlocksOverride } = budget;
  const problem = `The KV cache holds ${numBlocks * layout.blockSize} tokens (${numBlocks} ` +
    `${
      numBlocks === 1 ? "block" : "blocks"
    } of ${layout.blockSize}), fewer than one sequence of --max-model-len ${maxModelLen}.`;
  if (numBlocksOverride !== null) {
    return new UsageError(`${problem} Raise --num-gpu-blocks-override or lower --max-model-len.`);
  }
  const swap = budget.usesSwap ? `, swap space: ${budget.swapSpaceGiB} GiB each` : "";
  return new UsageError(
    `${problem} Free memory: ${freeMemory(budget)}, ` +
      `weights: ${shownSize(budget.weightBytes)} each${swap}, KV cache of one such sequence: ` +
      `${shownSize(Math.ceil(maxModelLen / layout.blockSize) * blockBytes(layout))}, process: ` +
      `${shownSize(PROCESS_BYTES)} each. ` +
      `Lower --max-model-len or the number of instances, or raise --gpu-memory-utilization.`,
  );
}

/** In GiB; in MiB below 0.1 GiB. */
export function shownSize(bytes: number): string {
  return bytes < 0.1 * 2 ** 30
    ? `${(bytes / 2 ** 20).toFixed(2)} MiB`
    : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

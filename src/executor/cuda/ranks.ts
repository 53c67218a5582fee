/** The devices of an executor: one, or one for each rank of `--tensor-parallel-size`. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import type { DecoderKernels } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { LocalRanks } from "../../../ffi/nccl/local_ranks.ts";
import type { Activations } from "./activations.ts";
import { endCommunicators } from "./communicators.ts";
import type { DeviceMemory } from "./device_memory.ts";
import type { CudaWeights } from "./weights.ts";

/** What one device has of a model. All its work goes to one stream. */
export interface CudaRank {
  readonly ordinal: number;
  readonly stream: bigint;
  readonly memory: DeviceMemory;
  readonly kernels: DecoderKernels;
  readonly weights: CudaWeights;
  readonly activations: Activations;
}

/** Rows of which each rank has a part, and where all of them go. */
export interface Parts {
  /** The rank's part, [rows, width]. */
  readonly from: (rank: CudaRank) => bigint;
  /** Of all ranks, [rows, fullWidth]; 0n where a rank does not need it. */
  readonly to: (rank: CudaRank) => bigint;
  /** Bytes of a row of a part, a multiple of 4. */
  readonly width: number;
  /** Bytes of a row of all ranks. If they are fewer than all parts have, the last part overlaps the one before. */
  readonly fullWidth: number;
}

/**
 * All ranks, driven from one thread: what is to be done on each is put on its stream, rank by rank. Between
 * kernels that need all of a row and those that compute parts of it, NCCL gathers the parts.
 */
export class Ranks {
  readonly #cuda: Cuda;
  readonly #communicators: LocalRanks | null;

  /**
   * @param all by rank
   * @param communicators of their devices; null: there is one rank
   */
  constructor(
    cuda: Cuda,
    readonly all: readonly CudaRank[],
    communicators: LocalRanks | null,
  ) {
    this.#cuda = cuda;
    this.#communicators = communicators;
  }

  /** The rank whose logits are whole, and which chooses tokens. */
  get first(): CudaRank {
    return this.all[0];
  }

  /** Calls `action` for each rank, whose device is current meanwhile. */
  each(action: (rank: CudaRank, index: number) => void): void {
    for (const [index, rank] of this.all.entries()) {
      if (this.all.length > 1) this.#cuda.setDevice(rank.ordinal);
      action(rank, index);
    }
  }

  /**
   * Gathers rows of which each rank has a part. With one rank nothing is to be done: its part is all.
   * @throws {NcclError}
   */
  gather({ from, to, width, fullWidth }: Parts, rows: number): void {
    const count = this.all.length;
    if (this.#communicators === null) return;
    const isWhole = count * width === fullWidth;
    // One row is in order as it comes.
    const isDirect = (rank: CudaRank) => rows === 1 && isWhole && to(rank) !== 0n;
    const gathered = this.all.map((rank) => ({
      from: from(rank),
      to: isDirect(rank) ? to(rank) : rank.activations.gathered,
      stream: rank.stream,
    }));
    this.#communicators.allGather(gathered, rows * width);
    this.each((rank) => {
      if (to(rank) === 0n || isDirect(rank)) return;
      const part = (index: number) => ({
        address: rank.activations.gathered + BigInt(index * rows * width),
        ...{ part: rows * width, row: width },
      });
      const place = (offset: number) => ({
        address: to(rank) + BigInt(offset),
        ...{ part: width, row: fullWidth },
      });
      const { kernels } = rank;
      kernels.moveParts(part(0), place(0), width, rows, isWhole ? count : count - 1);
      if (!isWhole) kernels.moveParts(part(count - 1), place(fullWidth - width), width, rows, 1);
    });
  }

  /** Gives each rank its part of rows that it has whole: the inverse of {@linkcode gather}. */
  cut({ from, to, width, fullWidth }: Parts, rows: number): void {
    if (this.#communicators === null) return;
    this.each((rank, index) => {
      const whole = { address: to(rank) + BigInt(index * width), part: 0, row: fullWidth };
      const part = { address: from(rank), part: 0, row: width };
      rank.kernels.moveParts(whole, part, width, rows, 1);
    });
  }

  /**
   * Gives each rank a copy of words of the first one.
   * @param from where the first rank has them; the others have as much room there, which is not read
   * @returns where each rank has them, until the next call of `gather`
   */
  share(from: (rank: CudaRank) => bigint, words: number): (rank: CudaRank) => bigint {
    if (this.#communicators === null) return from;
    const gathered = this.all.map((rank) => ({
      from: from(rank),
      to: rank.activations.gathered,
      stream: rank.stream,
    }));
    this.#communicators.allGather(gathered, words * 4);
    return ({ activations }) => activations.gathered;
  }

  /** Returns when everything is done that was asked for. */
  synchronize(): void {
    this.each(({ stream }) => this.#cuda.synchronizeStream(stream));
  }

  /** Ends the communicators, once nothing is under way. */
  async close(): Promise<void> {
    await endCommunicators(this.#communicators);
  }
}

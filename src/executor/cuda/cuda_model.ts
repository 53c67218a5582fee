import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import type { CudaSwap } from "../../kv/pool/cuda/cuda_swap.ts";
import type { DevicePool } from "../../kv/pool/pool.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { ExecutorInfo } from "../executor.ts";
import type { CudaTokenChooser } from "./cuda_token_chooser.ts";
import type { DecodeGraphs } from "./decode_graphs.ts";
import type { PromptProducts } from "./prompt_products.ts";
import type { Ranks } from "./ranks.ts";

/** A model on its devices. */
export interface CudaModel {
  readonly cuda: Cuda;
  readonly config: ModelConfig;
  readonly ranks: Ranks;
  /** Null: no library computes prompts. */
  readonly promptProducts: PromptProducts | null;
  /** Null: the host chooses tokens. */
  readonly chooser: CudaTokenChooser | null;
}

/** The blocks on a device. */
export interface CudaBlocks {
  readonly address: bigint;
  readonly swap: CudaSwap;
  /** Pinned memory of the swap pool; 0n if there is none. */
  readonly swapAddress: bigint;
}

/** A KV cache for a model. */
export interface CudaCache {
  readonly info: ExecutorInfo;
  readonly pool: DevicePool;
  /** By rank. */
  readonly blocks: readonly CudaBlocks[];
  /** Null: every launch is made anew. */
  readonly graphs: DecodeGraphs | null;
}

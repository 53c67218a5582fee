import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import type { DecoderKernels } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { CudaSwap } from "../../kv/pool/cuda/cuda_swap.ts";
import type { DevicePool } from "../../kv/pool/pool.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { ExecutorInfo } from "../executor.ts";
import type { Activations } from "./activations.ts";
import type { CudaTokenChooser } from "./cuda_token_chooser.ts";
import type { DecodeGraphs } from "./decode_graphs.ts";
import type { DeviceMemory } from "./device_memory.ts";
import type { PromptProducts } from "./prompt_products.ts";
import type { CudaWeights } from "./weights.ts";

/** The parts of a model on a device. All work goes to one stream. */
export interface CudaModel {
  readonly cuda: Cuda;
  readonly stream: bigint;
  readonly memory: DeviceMemory;
  readonly kernels: DecoderKernels;
  readonly config: ModelConfig;
  readonly weights: CudaWeights;
  readonly activations: Activations;
  /** Null: no library computes prompts. */
  readonly promptProducts: PromptProducts | null;
  /** Null: the host chooses tokens. */
  readonly chooser: CudaTokenChooser | null;
}

/** A KV cache for a model. */
export interface CudaCache {
  readonly info: ExecutorInfo;
  readonly pool: DevicePool;
  readonly swap: CudaSwap;
  /** Null: every launch is made anew. */
  readonly graphs: DecodeGraphs | null;
  /** Pinned memory of the swap pool; 0n if there is none. */
  readonly swapAddress: bigint;
}

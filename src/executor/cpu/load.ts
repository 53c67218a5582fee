import {
  allowedCpus,
  KernelError,
  kernelSetStates,
  loadCpuKernels,
} from "../../../ffi/cpu_kernels/load.ts";
import type {
  CpuKernels,
  DecoderWeights,
  KernelAddress,
  KvCacheView,
} from "../../../ffi/cpu_kernels/kernels.ts";
import { mapFile } from "../../../ffi/libc.ts";
import { ModelError, UsageError } from "../../core/errors.ts";
import { blockBytes, type KvLayout, layerBytes } from "../../kv/layout.ts";
import { HostKvPool } from "../../kv/pool/host_kv_pool.ts";
import {
  type KvBudget,
  type KvCapacity,
  planKvCache,
  plannedBytes,
  shownSize,
} from "../../kv/sizing.ts";
import { openWeights, type ResolvedModel, resolveModel } from "../../model/resolve.ts";
import { type FileBytes, openByReading } from "../../model/safetensors.ts";
import { decoderSpec } from "../../model/structure.ts";
import type { TensorSource } from "../../model/tensor.ts";
import type { Executor, ExecutorSpec, OnProgress } from "../executor.ts";
import { TransformerExecutor } from "../transformer/transformer_executor.ts";
import { CpuTransformer } from "./cpu_transformer.ts";
import { availableMemoryBytes } from "./host_memory.ts";
import { CpuLogitsHead } from "./logits.ts";
import { claimMemory } from "./memory_claims.ts";
import { tokenTimeoutMs } from "./step_time.ts";
import { planThreads } from "./threads.ts";
import { loadWeights, weightBytes } from "./weights.ts";

/**
 * Most rows that go through the model together. Longer prompts are cut into slices of this size, which
 * bounds the memory of activations; matrix products gain nothing from more rows.
 */
const maxRows = 512;

/** Linear memory of the WASM kernels, less the part that activations and scratch may need. */
const wasmMemoryBytes = 3.5 * 2 ** 30;

/**
 * Loads a model for the CPU. Blocks the thread while it loads.
 * @param model default: that of the options
 * @param change gives what is read instead of the model's weights; for comparisons
 * @throws {ModelError} the model is missing, damaged or not supported
 * @throws {UsageError} the options do not fit the model or the memory
 */
export async function loadCpuExecutor(
  spec: ExecutorSpec,
  onProgress: OnProgress,
  model = resolveModel(spec.options),
  change: (source: TensorSource) => TensorSource = (source) => source,
): Promise<Executor> {
  refuseHeadDim(model);
  onProgress({ phase: "kernels", doneBytes: 0, totalBytes: 0, detail: "loading CPU kernels" });
  const kernels = await openKernels(spec);
  try {
    return await buildExecutor(kernels, model, spec, onProgress, change);
  } catch (error) {
    kernels.close();
    if (!(error instanceof KernelError)) throw error;
    throw new ModelError(`Model ${model.name} cannot run on the CPU: ${error.message}.`, {
      cause: error,
    });
  }
}

/** Checks a limit of the kernels (attention.h) at load: they would only fail in the first step. */
function refuseHeadDim({ name, config: { headDim } }: ResolvedModel): void {
  if (headDim % 8 === 0 && headDim <= 256) return;
  throw new ModelError(
    `Model ${name} cannot run on the CPU: its head size is ${headDim}, and must be a multiple of ` +
      `8 up to 256.`,
  );
}

async function openKernels({ options, hostShare }: ExecutorSpec): Promise<CpuKernels> {
  const plan = planThreads({
    requested: options.cpuThreads,
    hostShare,
    allowedCpus: allowedCpus(),
    parallelism: navigator.hardwareConcurrency,
  });
  try {
    return await loadCpuKernels({ set: options.cpuKernels, ...plan });
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    const chosen = kernelSetStates().find(({ set }) => set === options.cpuKernels);
    const option = (chosen?.unavailable ?? null) !== null ? "--cpu-kernels" : "--cpu-threads";
    throw new UsageError(`${option}: ${error.message}`, { cause: error });
  }
}

async function buildExecutor(
  kernels: CpuKernels,
  model: ResolvedModel,
  spec: ExecutorSpec,
  onProgress: OnProgress,
  change: (source: TensorSource) => TensorSource,
): Promise<Executor> {
  const { config, dtype, maxModelLen } = model;
  const layout = kvLayout(model, spec);
  const capacity = await planCapacity(kernels, model, spec, layout);
  const weights = readWeights(kernels, model, spec, onProgress, change);
  const { pool, swapPool } = allocatePools(kernels, layout, capacity, onProgress);
  const cache: KvCacheView = {
    address: pool,
    type: dtype,
    blockBytes: blockBytes(layout),
    layerBytes: layerBytes(layout),
    numKvHeads: layout.numKvHeads,
    headDim: layout.headDim,
    blockSize: layout.blockSize,
  };
  // By type, never by batch size: a row's result must not depend on its batch.
  const roundActivations = dtype === "bfloat16";
  const transformer = new CpuTransformer({
    kernels,
    info: {
      description: `cpu (${kernels.name}, ${kernels.threads} ` +
        `thread${kernels.threads === 1 ? "" : "s"})`,
      model: model.identity,
      dtype,
      vocabSize: config.vocabSize,
      maxModelLen,
      maxPieceTokens: maxRows,
      layout,
      ...capacity,
      tokenTimeoutMs: tokenTimeoutMs(
        config,
        maxModelLen,
        Math.min(kernels.threads, navigator.hardwareConcurrency / spec.hostShare),
      ),
    },
    decoder: kernels.decoder({ ...config, roundActivations }, weights, cache, maxRows),
    head: new CpuLogitsHead(kernels, weights.lmHead, roundActivations, maxRows),
    maxRows,
    // The linear memory of WASM kernels belongs to their thread.
    pool: kernels.name === "wasm" ? null : new HostKvPool(pool, layout, capacity.numBlocks),
    blocks: pool,
    swapBlocks: swapPool,
  });
  return new TransformerExecutor(transformer);
}

function kvLayout({ config, dtype }: ResolvedModel, { options }: ExecutorSpec): KvLayout {
  return {
    format: "k-transposed",
    dtype,
    numLayers: config.numLayers,
    numKvHeads: config.numKvHeads,
    headDim: config.headDim,
    blockSize: options.blockSize,
  };
}

async function planCapacity(
  kernels: CpuKernels,
  model: ResolvedModel,
  { options, hostShare }: ExecutorSpec,
  layout: KvLayout,
): Promise<KvCapacity> {
  const { capacity } = await claimMemory((claims) => {
    const budget: KvBudget = {
      layout,
      availableBytes: availableMemoryBytes(),
      unclaimedBytes: availableMemoryBytes(claims),
      addressableBytes: kernels.name === "wasm" ? wasmMemoryBytes : Infinity,
      weightBytes: weightBytes(kernels, decoderSpec(model.config), model.dtype),
      memoryUtilization: options.gpuMemoryUtilization,
      hostShare,
      numBlocksOverride: options.numGpuBlocksOverride,
      swapSpaceGiB: options.swapSpace,
      usesSwap: options.preemptionMode === "swap",
      maxNumSeqs: options.maxNumSeqs,
      maxModelLen: model.maxModelLen,
    };
    const capacity = planKvCache(budget);
    return { capacity, claimBytes: plannedBytes(budget, capacity) };
  });
  return capacity;
}

function readWeights(
  kernels: CpuKernels,
  model: ResolvedModel,
  { options }: ExecutorSpec,
  onProgress: OnProgress,
  change: (source: TensorSource) => TensorSource,
): DecoderWeights {
  const { config, dtype, maxModelLen } = model;
  const spec = decoderSpec(config);
  const source = change(openWeights(model, options, openFile));
  try {
    return loadWeights(kernels, source, config, spec, dtype, maxModelLen, (bytes) => {
      onProgress({ phase: "weights", ...bytes, detail: source.description });
    });
  } finally {
    source.close();
  }
}

function openFile(path: string): FileBytes {
  return mapFile(path) ?? openByReading(path);
}

/** Allocates both pools. Memory that no step touches never becomes resident. */
function allocatePools(
  kernels: CpuKernels,
  layout: KvLayout,
  { numBlocks, numSwapBlocks }: KvCapacity,
  onProgress: OnProgress,
): { pool: KernelAddress; swapPool: KernelAddress } {
  const allocate = (phase: "kv-cache" | "swap-pool", blocks: number): KernelAddress => {
    const totalBytes = blocks * blockBytes(layout);
    const detail = `${blocks} blocks of ${layout.blockSize} tokens`;
    try {
      onProgress({ phase, doneBytes: 0, totalBytes, detail });
      const address = kernels.alloc(totalBytes);
      onProgress({ phase, doneBytes: totalBytes, totalBytes, detail });
      return address;
    } catch (error) {
      const what = phase === "kv-cache" ? "KV cache" : "swap pool";
      const advice = phase === "kv-cache"
        ? "--num-gpu-blocks-override, --gpu-memory-utilization, --max-num-seqs or --max-model-len"
        : "--swap-space";
      throw new UsageError(
        `Cannot allocate the ${what}, ${shownSize(totalBytes)} (${detail}): ` +
          `${(error as Error).message}. Lower ${advice}.`,
        { cause: error },
      );
    }
  };
  return {
    pool: allocate("kv-cache", numBlocks),
    swapPool: numSwapBlocks > 0 ? allocate("swap-pool", numSwapBlocks) : 0n,
  };
}

/**
 * Built-in profiles, derived from datasheets by the roofline model (Williams et al., CACM 2009): a
 * step takes the longer of its arithmetic and its memory traffic, each at a stated fraction of the
 * datasheet's peak, and a fixed cost on the host.
 */
import { dtypeBytes } from "../../core/dtype.ts";
import { UsageError } from "../../core/errors.ts";
import { didYouMean } from "../../core/suggest.ts";
import { type Gpu, gpus, type SimulatedModel, simulatedModels, type Sourced } from "./devices.ts";
import type {
  Bandwidth,
  BlocksEntry,
  BlocksKey,
  CacheShape,
  DecodeLatency,
  ModelProfile,
  PrefillLatency,
} from "./profile.ts";

/** The paper's measurements of LLaMA-7B on A10 with 8k tokens (section 6.2, read off figure 10). */
const paper = {
  tokens: 8192,
  /** Computing a sequence's KV cache anew. */
  recomputeSeconds: 2.0,
  /** Copying it to another instance with the request stopped. */
  blockingCopySeconds: 1.7,
};

/** Fractions of datasheet peaks, and costs that no datasheet has. */
export const assumptions = {
  weightReadEfficiency: {
    value: 0.8,
    source: "assumed: matrix-vector kernels stream weights at 80% of the memory's peak",
  },
  kvReadEfficiency: {
    value: 0.8 / 1.26,
    source: "as weights, slowed by the up to 26% that PagedAttention costs over contiguous " +
      "attention (vLLM paper, SOSP'23, section 7.1)",
  },
  computeEfficiency: {
    value: paperComputeEfficiency(),
    source: "Llumnix paper, figure 10: LLaMA-7B on A10 recomputes 8k tokens in 2.0 s",
  },
  networkEfficiency: {
    value: paperNetworkEfficiency(),
    source: "Llumnix paper, figure 10: a blocking copy of 8k tokens takes 1.7 s over 64 Gb/s",
  },
  hostLinkEfficiency: {
    value: 0.8,
    source: "assumed: copies from pinned memory reach 80% of a PCIe direction",
  },
  hostMsPerStep: {
    value: 2,
    source: "assumed: launch of a step by vLLM 0.4's Python host code",
  },
  hostMsPerSequence: {
    value: 0.05,
    source: "assumed: scheduling and sampling of a sequence by vLLM 0.4's Python host code",
  },
  reservedBytes: {
    value: 0.5e9,
    source: "assumed: CUDA context and library workspaces",
  },
  activationTokens: {
    value: 2048,
    source: "vLLM 0.4.2, SchedulerConfig: the least default of max_num_batched_tokens",
  },
  sampledSequences: { value: 256, source: "vLLM 0.4.2: default of max_num_seqs" },
} satisfies Record<string, Sourced>;

/** Published numbers of blocks, which are used instead of the formula. */
const measuredBlocks: readonly (BlocksEntry & { readonly gpu: string; readonly model: string })[] =
  [{
    gpu: "a10",
    model: "llama-7b",
    memoryUtilization: 0.9,
    blockSize: 16,
    maxBatchedTokens: null,
    numBlocks: 851,
    source: "Llumnix paper, section 6.1: an A10 holds 13,616 tokens of LLaMA-7B",
  }];

/** Names of `--gpu-type`. */
export const gpuTypes: readonly string[] = gpus.map(({ name }) => name);

/** Names of the models that have a built-in profile for every GPU. */
export const builtinModelNames: readonly string[] = simulatedModels.map(({ name }) => name);

/**
 * The built-in profile of a model on a GPU, without parallelism.
 * @param gpuType one of {@linkcode gpuTypes}
 * @param model one of {@linkcode builtinModelNames}
 * @param key options for which to give the number of blocks
 * @throws {UsageError} an unknown GPU or model, or a model that does not fit the GPU
 */
export function builtinProfile(
  gpuType: string,
  model: string,
  key: BlocksKey = { memoryUtilization: 0.9, blockSize: 16, maxBatchedTokens: null },
): ModelProfile {
  const gpu = gpus.find(({ name }) => name === gpuType.toLowerCase());
  if (!gpu) {
    throw new UsageError(
      `--gpu-type ${gpuType} has no built-in profile: expected ${gpuTypes.join(", ")}, or a ` +
        `profile of its own by --profiling-result-file-path${didYouMean(gpuType, gpuTypes)}`,
    );
  }
  const simulated = simulatedModels.find(({ name }) => name === model.toLowerCase());
  if (!simulated) {
    throw new UsageError(
      `There is no built-in profile of ${model} for --gpu-type ${gpu.name}: expected ` +
        `${builtinModelNames.join(", ")}, or a profile by --profiling-result-file-path` +
        didYouMean(model, builtinModelNames),
    );
  }
  return {
    model: simulated.name,
    tensorParallelSize: 1,
    pipelineParallelSize: 1,
    shape: simulated.shape,
    prefill: prefillLatency(gpu, simulated),
    decode: decodeLatency(gpu, simulated),
    blocks: [measuredEntry(gpu, simulated, key) ?? blocksOf(gpu, simulated, key)],
    migration: bandwidth(gpu.network, assumptions.networkEfficiency),
    swap: bandwidth(gpu.hostBandwidth, assumptions.hostLinkEfficiency),
  };
}

/** Bytes of one token's keys and values over all layers. */
export function kvBytesPerToken(shape: CacheShape): number {
  return 2 * shape.numLayers * shape.numKvHeads * shape.headDim * dtypeBytes(shape.dtype);
}

function weightBytes({ parameters, shape }: SimulatedModel): number {
  return parameters.value * dtypeBytes(shape.dtype);
}

/** Milliseconds to read all weights once. */
function weightReadMs(gpu: Gpu, model: SimulatedModel): number {
  const bytesPerMs = gpu.memoryBandwidth.value * assumptions.weightReadEfficiency.value / 1e3;
  return weightBytes(model) / bytesPerMs;
}

/** A multiplication and an addition per parameter and token; attention's share is left out. */
function computeMs(gpu: Gpu, model: SimulatedModel, tokens: number): number {
  const flopsPerMs = gpu.flops.value * assumptions.computeEfficiency.value / 1e3;
  return 2 * model.parameters.value * tokens / flopsPerMs;
}

function prefillRoofline(gpu: Gpu, model: SimulatedModel, tokens: number): number {
  return Math.max(computeMs(gpu, model, tokens), weightReadMs(gpu, model)) +
    assumptions.hostMsPerStep.value;
}

/**
 * A line through the roofline: its slope where arithmetic dominates, and the constant that comes
 * nearest in relative error over prompts of 8 to 8192 tokens, each length counting alike.
 */
function prefillLatency(gpu: Gpu, model: SimulatedModel): PrefillLatency {
  const msPerToken = computeMs(gpu, model, 1);
  let weights = 0, weighted = 0;
  for (let tokens = 8; tokens <= 8192; tokens *= 2 ** 0.125) {
    const ms = prefillRoofline(gpu, model, tokens);
    weights += 1 / ms ** 2;
    weighted += (ms - msPerToken * tokens) / ms ** 2;
  }
  return {
    msPerToken,
    msPerStep: weighted / weights,
    source: `line through the roofline max(2 * parameters * tokens / FLOPS, weights / bandwidth) ` +
      `+ host; ${describe({ flops: gpu.flops, bandwidth: gpu.memoryBandwidth })}`,
  };
}

function decodeLatency(gpu: Gpu, model: SimulatedModel): DecodeLatency {
  const kvBytesPerMs = gpu.memoryBandwidth.value * assumptions.kvReadEfficiency.value / 1e3;
  return {
    msPerSequence: assumptions.hostMsPerSequence.value,
    msPerToken: kvBytesPerToken(model.shape) / kvBytesPerMs,
    msPerStep: weightReadMs(gpu, model) + assumptions.hostMsPerStep.value,
    source: `roofline: host per sequence, KV cache / bandwidth, weights / bandwidth + host; ` +
      describe({ bandwidth: gpu.memoryBandwidth }),
  };
}

function bandwidth(peak: Sourced, efficiency: Sourced): Bandwidth {
  return { gbps: peak.value * efficiency.value / 1e9, source: describe({ peak, efficiency }) };
}

function measuredEntry(gpu: Gpu, model: SimulatedModel, key: BlocksKey): BlocksEntry | null {
  const found = measuredBlocks.find((entry) =>
    entry.gpu === gpu.name && entry.model === model.name && entry.blockSize === key.blockSize &&
    entry.memoryUtilization === key.memoryUtilization
  );
  if (!found) return null;
  const { gpu: _gpu, model: _model, ...entry } = found;
  return entry;
}

/** What vLLM 0.4.2 leaves for the cache after it ran the model once with the largest batch. */
function blocksOf(gpu: Gpu, model: SimulatedModel, key: BlocksKey): BlocksEntry {
  const { reservedBytes, activationTokens } = assumptions;
  const batchedTokens = key.maxBatchedTokens ?? activationTokens.value;
  const cacheBytes = gpu.memoryBytes.value * key.memoryUtilization - weightBytes(model) -
    activationBytes(model, batchedTokens) - reservedBytes.value;
  const numBlocks = Math.floor(cacheBytes / (kvBytesPerToken(model.shape) * key.blockSize));
  if (numBlocks < 1) {
    throw new UsageError(
      `${model.name} does not fit the ${gpu.name} with --gpu-memory-utilization ` +
        `${key.memoryUtilization} and steps of ${batchedTokens} tokens: its weights take ` +
        `${(weightBytes(model) / 1e9).toFixed(1)} of ${gpu.memoryBytes.value / 1e9} GB. Raise ` +
        `--gpu-memory-utilization, choose a larger --gpu-type, or lower --max-model-len or ` +
        `--max-num-batched-tokens.`,
    );
  }
  return {
    ...key,
    numBlocks,
    source: "memory * utilisation - weights - activations - reserve, over the bytes of a block; " +
      describe({ memory: gpu.memoryBytes, parameters: model.parameters, reserve: reservedBytes }),
  };
}

/**
 * Peak of activations: in a layer the gated feed-forward's two inputs and their product beside
 * residual, hidden state and their norms; at the end float32 logits and probabilities.
 */
function activationBytes(model: SimulatedModel, batchedTokens: number): number {
  const { hiddenSize, intermediateSize, vocabSize, shape } = model;
  const perToken = (3 * intermediateSize + 4 * hiddenSize) * dtypeBytes(shape.dtype);
  return perToken * batchedTokens + assumptions.sampledSequences.value * vocabSize * 2 * 4;
}

/** Operations of a causal prefill of the paper's length per second, over the A10's peak. */
function paperComputeEfficiency(): number {
  const [a10] = gpus, [llama7b] = simulatedModels;
  return 2 * llama7b.parameters.value * paper.tokens / paper.recomputeSeconds / a10.flops.value;
}

/** Bytes per second of the paper's blocking copy, over the network's peak. */
function paperNetworkEfficiency(): number {
  const [a10] = gpus, [llama7b] = simulatedModels;
  const bytes = kvBytesPerToken(llama7b.shape) * paper.tokens;
  return bytes / paper.blockingCopySeconds / a10.network.value;
}

function describe(values: Readonly<Record<string, Sourced>>): string {
  return Object.entries(values)
    .map(([name, { value, source }]) => `${name} ${value.toPrecision(4)} (${source})`)
    .join("; ");
}

import type {
  GenerateRequest,
  RequestOutput,
  SamplingParams,
} from "../../src/core/protocol/generate.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import type { EngineConfig } from "../../src/instance/engine/engine_config.ts";
import type { EngineCore } from "../../src/instance/engine/engine_core.ts";

/** Greedy, 16 tokens, no end tokens; `overrides` win. */
export function samplingParams(overrides: Partial<SamplingParams> = {}): SamplingParams {
  return {
    ...samplingDefaults,
    maxTokens: 16,
    temperature: 0,
    seed: 0,
    eosTokenIds: [],
    ...overrides,
  };
}

/** A request of `promptTokens` tokens from frontend `f`; `overrides` win. */
export function generateRequest(
  requestId: string,
  promptTokens: number,
  params: Partial<SamplingParams> = {},
  overrides: Partial<GenerateRequest> = {},
): GenerateRequest {
  return {
    requestId,
    frontendId: "f",
    promptTokenIds: Array.from({ length: promptTokens }, (_, i) => (i * 7 + promptTokens) % 97),
    outputTokenIds: [],
    params: samplingParams(params),
    arrivalMs: 0,
    ...overrides,
  };
}

export function engineConfig(overrides: Partial<EngineConfig> = {}): EngineConfig {
  return {
    instanceId: "i0",
    instanceType: "both",
    maxNumSeqs: 8,
    maxNumBatchedTokens: 256,
    maxSharedPrefillTokens: 256,
    maxModelLen: 256,
    schedulerDelayFactor: 0,
    preemptionMode: "recompute",
    maxWaitingRequests: 1000,
    prefillHoldMs: 2_000,
    stepTimeoutMs: 60_000,
    stepTimeoutPerTokenMs: 0,
    ...overrides,
  };
}

export function engineOptions(overrides: Partial<EngineOptions> = {}): EngineOptions {
  return {
    model: null,
    tokenizer: null,
    skipTokenizerInit: false,
    revision: null,
    tokenizerRevision: null,
    downloadDir: null,
    loadFormat: "auto",
    dtype: "auto",
    maxModelLen: null,
    blockSize: 16,
    seed: 0,
    swapSpace: 4,
    gpuMemoryUtilization: 0.9,
    numGpuBlocksOverride: null,
    maxNumBatchedTokens: null,
    maxNumSeqs: 256,
    maxLogprobs: 5,
    schedulerDelayFactor: 0,
    preemptionMode: null,
    device: "null",
    profilingResultFilePath: "",
    gpuType: "a10",
    speedup: 1,
    cpuThreads: null,
    enforceEager: false,
    maxSeqLenToCapture: 8192,
    tensorParallelSize: 1,
    allowSharedDevice: false,
    quantization: null,
    kvCacheDtype: "auto",
    cudaPlainPaths: null,
    cudaPromptGemm: "own",
    cudaSelfTest: "off",
    cpuKernels: null,
    prefillHoldTimeout: 2,
    stepTimeout: 60,
    ...overrides,
  };
}

/** The outputs for all API servers since the last call. */
export function takeOutputs(core: EngineCore): RequestOutput[] {
  return core.takeOutputs().flatMap(({ outputs }) => outputs);
}

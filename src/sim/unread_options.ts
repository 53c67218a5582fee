import type { EngineOptions } from "../core/options.ts";

/** Engine options that simulated instances do not read: they are for real models and devices. */
export const unreadOptions = {
  tokenizer: null,
  skipTokenizerInit: true,
  revision: null,
  tokenizerRevision: null,
  downloadDir: null,
  loadFormat: "auto",
  maxLogprobs: 0,
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
} satisfies Partial<EngineOptions>;

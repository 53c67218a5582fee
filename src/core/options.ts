/**
 * Effective options by the part of the system that reads them: the camel-case names of the
 * command-line arguments. The argument table (`src/cli`) is the source of names, choices, defaults
 * and help; its inferred types must satisfy these.
 */
import type { RequestMigrationPolicy } from "./protocol/migration.ts";

/** Options of an instance: vLLM 0.4.2's engine arguments that have a meaning here. */
export interface EngineOptions {
  /** Local directory, hub name in the local cache, or a built-in one; null for llumnix-story. */
  readonly model: string | null;
  readonly tokenizer: string | null;
  readonly skipTokenizerInit: boolean;
  readonly revision: string | null;
  readonly tokenizerRevision: string | null;
  readonly downloadDir: string | null;
  readonly loadFormat: "auto" | "safetensors" | "dummy";
  readonly dtype: "auto" | "half" | "float16" | "bfloat16" | "float" | "float32";
  /** How linear weights are stored; null: as the others. */
  readonly quantization: "fp8" | null;
  /** `auto`: as the weights are computed with. */
  readonly kvCacheDtype: "auto" | "fp8";
  readonly maxModelLen: number | null;
  readonly blockSize: number;
  readonly seed: number;
  /** GiB of host memory for swapped-out blocks. */
  readonly swapSpace: number;
  /** Fraction of (free) memory that weights and KV cache may take. */
  readonly gpuMemoryUtilization: number;
  readonly numGpuBlocksOverride: number | null;
  readonly maxNumBatchedTokens: number | null;
  readonly maxNumSeqs: number;
  readonly maxLogprobs: number;
  readonly schedulerDelayFactor: number;
  readonly preemptionMode: "recompute" | "swap" | null;
  readonly device: "auto" | "cpu" | "cuda" | "null" | "null-cuda" | "sim";
  /** Profile of simulated instances; empty for a built-in one of `gpuType`. */
  readonly profilingResultFilePath: string;
  readonly gpuType: string;
  /** Simulated steps run this many times faster than the profile says. */
  readonly speedup: number;
  /** Threads of the CPU executor of one instance; null divides the cores among the instances. */
  readonly cpuThreads: number | null;
  /** CPU kernel set; null picks the fastest the processor has. */
  readonly cpuKernels: "amx" | "avx512bf16" | "avx512" | "avx2" | "neon" | "wasm" | null;
  /** No CUDA graphs. */
  readonly enforceEager: boolean;
  /** Longest context in tokens that CUDA graphs cover. */
  readonly maxSeqLenToCapture: number;
  /** Fast paths of the CUDA executor that it does without, or "all"; null: none. */
  readonly cudaPlainPaths: readonly string[] | null;
  /** What computes the linear layers of long prompts. */
  readonly cudaPromptGemm: "own" | "cublaslt";
  /** When the kernels are compared with those of the CPU before they serve. */
  readonly cudaSelfTest: "auto" | "always" | "off";
  /** Devices of an instance, among which the model is divided. */
  readonly tensorParallelSize: number;
  /** Instances may share a CUDA device, and divide its memory. */
  readonly allowSharedDevice: boolean;
  /** Seconds that a request waits to leave a prefill instance; then it goes on there. */
  readonly prefillHoldTimeout: number;
  /** Seconds that a step may take; 0 for any time. The CPU executor gets more (`engine_config.ts`). */
  readonly stepTimeout: number;
}

/** What the load of an instance is measured in (src/manager/README.md, "Load"). */
export type LoadMetricName = "remaining_steps" | "usage_ratio" | "virtual_usage";

/** Options of the manager. */
export interface ManagerOptions {
  readonly initialInstances: number;
  /** An API server starts them, not the manager; default false. */
  readonly disableInitInstanceByManager?: boolean;
  readonly loadMetric: LoadMetricName;
  readonly dispatchPolicy: "balanced" | "load" | "queue" | "rr";
  /** How many instances take new requests; null for all. */
  readonly numDispatchInstances: number | null;
  /** Virtual usage that high priority adds to an instance; null derives it from the instance. */
  readonly priorityHeadroomBlocks: number | null;
  /** Seconds between instance info updates. */
  readonly pollingInterval: number;
  readonly disableLogRequestsManager: boolean;
}

/** What the manager does with running and waiting requests after their dispatch. */
export interface MigrationOptions {
  readonly enableMigration: boolean;
  /** Pairs are formed once in this many updates of instance info. */
  readonly pairMigrationFrequency: number;
  /** Without `enableDefrag` the policy in force is `balanced`. */
  readonly pairMigrationPolicy:
    | "balanced"
    | "defrag_constrained"
    | "defrag_relaxed"
    | "waiting_first";
  /** As written: positive steps, or with `usage_ratio` a fraction. */
  readonly migrateOutThreshold: number;
  readonly requestMigrationPolicy: RequestMigrationPolicy;
  readonly enableDefrag: boolean;
  /** Requests leave the instances of type `prefill` after their first token. */
  readonly enablePdDisagg: boolean;
}

/** How an instance moves a request. */
export interface TransferOptions {
  /** Blocks of one transfer round. */
  readonly migrationBufferBlocks: number;
  /** Layers of one transfer round. */
  readonly migrationNumLayers: number;
  /** A stage of at most this many blocks is the last. */
  readonly lastStageMaxBlocks: number;
  /** A migration of more stages is dropped. */
  readonly maxStages: number;
  /** `auto`, or the length in tokens below which a request is recomputed in place of moved. */
  readonly migrationCrossover: string;
}

/** What moves the blocks of a request. */
export interface MigrationBackendOptions {
  readonly enableMigration: boolean;
  readonly migrationBackend: "gloo" | "nccl" | "rayrpc" | "grpc" | "kvtransfer";
  /** Seconds that setting it up may take. */
  readonly migrationBackendInitTimeout: number;
  /** Only for kvtransfer, which refuses "": the way that blocks move. */
  readonly migrationBackendTransferType: "cuda_ipc" | "rdma" | "";
  /** Of kvtransfer: where instances find each other. */
  readonly migrationBackendKvtransferNamingUrl: string;
  /** Of grpc: where its server listens. */
  readonly migrationBackendServerAddress: string;
  /** Backends that cannot protect their connections between hosts may work all the same. */
  readonly migrationInsecure: boolean;
}

/** When the manager starts and stops instances. */
export interface ScalingOptions {
  readonly enableScaling: boolean;
  readonly minInstances: number;
  readonly maxInstances: number;
  /** Seconds between two decisions. */
  readonly scalingInterval: number;
  readonly scalingPolicy: "max_load" | "avg_load";
  /** As written: positive steps, or with `usage_ratio` fractions. */
  readonly scaleUpThreshold: number;
  readonly scaleDownThreshold: number;
}

/** Options of the API server. */
export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  readonly sslKeyfile: string | null;
  readonly sslCertfile: string | null;
  /** Authorities of client certificates. */
  readonly sslCaCerts: string | null;
  /** 2: HTTPS clients must show a certificate. Python's numbers, as vLLM has them. */
  readonly sslCertReqs: 0 | 2;
  readonly disableLogRequestsServer: boolean;
  readonly disableLogRequests: boolean;
  readonly logRequestTimestamps: boolean;
  /** Request lines carry the prompt, not only its length. */
  readonly logPrompts: boolean;
  readonly maxLogLen: number | null;
  readonly servedModelName: readonly string[] | null;
  readonly maxLogprobs: number;
  /** Requests in the service at once; more are refused with 429. */
  readonly maxQueuedRequests: number;
  /** Largest request body. */
  readonly maxBodyBytes: number;
  /** Seconds that the tokens of a resumable stream are kept after its end; 0: no stream is resumable. */
  readonly resumeHold: number;
  /** Seconds that running requests get to finish after SIGTERM. */
  readonly shutdownTimeout: number;
  /** HTTP clients that send it may operate the service; null turns the admin routes off. */
  readonly adminToken: string | null;
  /** Clients need one of these keys, or of `apiKeyFile` or VLLM_API_KEY. Without any, none is asked for. */
  readonly apiKey: readonly string[] | null;
  /** File with one key a line. */
  readonly apiKeyFile: string | null;
  /** File or Jinja text; null for the model's own. */
  readonly chatTemplate: string | null;
  readonly responseRole: string;
  /** What becomes of fields of requests that no route knows. */
  readonly unknownFields: "ignore" | "warn" | "refuse";
  /** JSON arrays of strings; null for the default. */
  readonly allowedOrigins: string | null;
  readonly allowedMethods: string | null;
  readonly allowedHeaders: string | null;
  readonly allowCredentials: boolean;
  /** Collector of traces; null: there are none. */
  readonly otlpTracesEndpoint: string | null;
  /** Path that a proxy puts before every other; empty for none. */
  readonly rootPath: string;
}

/** How a serving process keeps and watches its instances. */
export interface LifecycleOptions {
  /** `auto`: simulated instances run in the manager's process, others each in a process of its own. */
  readonly instanceIsolation: "auto" | "process" | "none";
  /** Seconds without a sign of life after which an instance is lost. */
  readonly instanceTimeout: number;
  /** Seconds that an instance gets to give its requests away or to finish them. */
  readonly drainTimeout: number;
}

/** What a process logs, and where. */
export interface LoggingOptions {
  readonly logLevel: "debug" | "info" | "warning" | "error";
  /** How a record is written. */
  readonly logFormat: "text" | "json";
  readonly logFilename: string;
  /** Size at which the log file is renamed; 0: never. */
  readonly logMaxBytes: number;
  /** Renamed log files that are kept. */
  readonly logBackups: number;
  readonly logInstanceInfo: boolean;
  readonly disableLogStats: boolean;
}

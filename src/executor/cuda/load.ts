import type { Cuda, DeviceInfo } from "../../../ffi/cuda/cuda.ts";
import { CudaError } from "../../../ffi/cuda/errors.ts";
import { GraphDriver } from "../../../ffi/cuda/graphs.ts";
import {
  DecoderKernels,
  elementBytes,
  neededSharedBytes,
  vectorBytes,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import { mapFile } from "../../../ffi/libc.ts";
import { LibraryNotFoundError, type OpenOptions } from "../../../ffi/library.ts";
import { servedType } from "../../core/dtype.ts";
import { ModelError, UsageError } from "../../core/errors.ts";
import type { EngineOptions } from "../../core/options.ts";
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import {
  allocateBlocks,
  allocateSwapBlocks,
  makeCurrent,
  openVisibleCuda,
} from "../../kv/pool/cuda/cuda_device.ts";
import { CudaKvPool } from "../../kv/pool/cuda/cuda_kv_pool.ts";
import { CudaSwap } from "../../kv/pool/cuda/cuda_swap.ts";
import { type KvCapacity, planKvCache, shownSize } from "../../kv/sizing.ts";
import { openWeights, type ResolvedModel, resolveModel } from "../../model/resolve.ts";
import { openByReading } from "../../model/safetensors.ts";
import type { Executor, ExecutorInfo, ExecutorSpec, OnProgress, StepInput } from "../executor.ts";
import type { SliceLimits } from "../transformer/slices.ts";
import { TransformerExecutor } from "../transformer/transformer_executor.ts";
import { SamplingKernels } from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import { type Activations, allocateActivations, rowsOfSlice } from "./activations.ts";
import { CudaTokenChooser } from "./cuda_token_chooser.ts";
import { CudaTransformer } from "./cuda_transformer.ts";
import type { CudaModel } from "./cuda_model.ts";
import { DecodeGraphs } from "./decode_graphs.ts";
import { type DeviceLease, leaseDevice } from "./device_lease.ts";
import { DeviceMemory } from "./device_memory.ts";
import { type CudaPath, kernelPaths, plainPathsOf } from "./paths.ts";
import { openPromptProducts, PROMPT_TILE_ROWS, type PromptProducts } from "./prompt_products.ts";
import { UPLOAD_BUFFER_BYTES, Uploads } from "./uploads.ts";
import { type CudaWeights, planWeights, uploadWeights } from "./weights.ts";

/** The kernels copy 16 bytes at a time without registers (cp.async), from sm_80 on. */
const LEAST_CAPABILITY = 8;
/** The first that has FP8. Earlier devices would spend more time on conversions than they save. */
const LEAST_FP8 = [8, 9] as const;

/** Finds the fast paths that do not work on a device: see `self_test/`. */
export type SelfTest = (
  model: ResolvedModel,
  device: SelfTestDevice,
  options: EngineOptions,
  plain: readonly CudaPath[],
) => Promise<SelfTestOutcome>;

export interface SelfTestDevice {
  readonly info: DeviceInfo;
  /** As CUDA codes it. */
  readonly driverVersion: number;
  readonly softwareDevice: boolean;
}

export interface SelfTestOutcome {
  /** The paths to do without, those that the options name among them. */
  readonly plain: readonly CudaPath[];
  /** Why a path is not taken, for people. */
  readonly warnings: readonly string[];
}

/**
 * Takes a CUDA device, tests it, and loads a model onto it. Blocks the thread while it loads.
 * @param libraries how the libraries are opened; for tests
 * @param selfTest default: none
 * @param promptTileRows see {@linkcode PROMPT_TILE_ROWS}; for tests
 * @throws {ModelError} the model is missing, damaged or not supported
 * @throws {UsageError} the options do not fit the model or the device, or the device fails the test
 * @throws {UnavailableError} the device cannot be used now
 */
export async function loadCudaExecutor(
  spec: ExecutorSpec,
  onProgress: OnProgress,
  libraries: OpenOptions = {},
  selfTest?: SelfTest,
  promptTileRows?: number,
): Promise<Executor> {
  const { options } = spec;
  const model = resolveModel(options);
  refuseShapes(model, options);
  const asked = plainPathsOf(options);
  const cuda = openVisibleCuda("cuda", libraries);
  const lease = await leaseDevice(cuda, {
    numInstances: spec.hostShare,
    allowShared: options.allowSharedDevice,
  });
  try {
    const info = cuda.deviceInfo(lease.ordinal);
    refuseDevice(model, info, options);
    const { softwareDevice } = cuda.library;
    const device = { info, driverVersion: cuda.driverVersion(), softwareDevice };
    onProgress({
      ...{ phase: "kernels", doneBytes: 0, totalBytes: 0 },
      detail: `testing and compiling kernels for ${info.name}`,
    });
    const tested = await selfTest?.(model, device, options, asked);
    const { plain = asked, warnings } = tested ?? {};
    const args = { model, lease, plain, libraries, warnings, onProgress, promptTileRows };
    return await loadCudaModel(spec, args);
  } catch (error) {
    lease.release();
    throw error;
  }
}

export interface CudaModelArgs {
  readonly model: ResolvedModel;
  /** Released when the executor is closed. */
  readonly lease: DeviceLease;
  readonly plain: readonly CudaPath[];
  readonly libraries: OpenOptions;
  readonly warnings?: readonly string[];
  readonly onProgress?: OnProgress;
  readonly promptTileRows?: number;
}

/** Loads a model onto a device that is leased already. @throws as {@linkcode loadCudaExecutor} */
export async function loadCudaModel(spec: ExecutorSpec, args: CudaModelArgs): Promise<Executor> {
  const cuda = openVisibleCuda("cuda", args.libraries);
  const loader = new Loader(cuda, spec, args);
  try {
    return await loader.load();
  } catch (error) {
    loader.abandon();
    throw error;
  }
}

/** For people: the options that ask for 8 bits. */
function askedFp8({ quantization, kvCacheDtype }: EngineOptions): string[] {
  return [
    ...quantization === "fp8" ? ["--quantization fp8"] : [],
    ...kvCacheDtype === "fp8" ? ["--kv-cache-dtype fp8"] : [],
  ];
}

/** Checks that the device has what the kernels need. */
function refuseDevice(
  { config, dtype, name }: ResolvedModel,
  device: DeviceInfo,
  options: EngineOptions,
): void {
  const { name: deviceName, computeCapability: [major, minor] } = device;
  if (major < LEAST_CAPABILITY) {
    throw new UsageError(
      `--device cuda: ${deviceName} has compute capability ${major}.${minor}, and ` +
        `${LEAST_CAPABILITY}.0 (Ampere) or later is needed. Use another device, or --device cpu.`,
    );
  }
  const [fp8] = askedFp8(options), [leastMajor, leastMinor] = LEAST_FP8;
  const hasFp8 = major > leastMajor || (major === leastMajor && minor >= leastMinor);
  if (fp8 !== undefined && !hasFp8) {
    throw new UsageError(
      `${fp8}: ${deviceName} has compute capability ${major}.${minor}, and FP8 needs ` +
        `${
          LEAST_FP8.join(".")
        } (Ada, Hopper) or later. Leave the option out, or use another device.`,
    );
  }
  const { numHeads: heads, numKvHeads: kvHeads, headDim } = config;
  const needed = neededSharedBytes(dtype, { heads, kvHeads, headDim });
  const available = device.sharedMemoryPerBlockBytes;
  if (needed <= available) return;
  throw new ModelError(
    `Model ${name} cannot run on ${deviceName}: its heads of ${headDim} in groups of ` +
      `${heads / kvHeads} need ${needed} bytes of shared memory in ${dtype}, and a block has ` +
      `${available}. Use --device cpu${dtype === "float32" ? ", or --dtype bfloat16" : ""}.`,
  );
}

/** Checks what the kernels cannot compute (attention.cu, linear.cu) before anything is loaded. */
function refuseShapes(
  { name, config, dtype }: ResolvedModel,
  { blockSize, quantization, kvCacheDtype }: EngineOptions,
): void {
  const { hiddenSize, intermediateSize, numHeads, headDim } = config;
  if (quantization === "fp8") {
    if (dtype === "float32") {
      throw new UsageError(
        "--quantization fp8: the model is computed in float32. Add --dtype bfloat16 or float16.",
      );
    }
    const inputs = {
      "hidden size": hiddenSize,
      "intermediate size": intermediateSize,
      "width of its heads": numHeads * headDim,
    };
    for (const [what, width] of Object.entries(inputs)) {
      if (width % vectorBytes === 0) continue;
      throw new ModelError(
        `Model ${name} cannot have weights in FP8: its ${what} is ${width}, and must be a multiple ` +
          `of ${vectorBytes}. Leave --quantization out.`,
      );
    }
  }
  if (kvCacheDtype === "fp8" && headDim % vectorBytes !== 0) {
    throw new ModelError(
      `Model ${name} cannot have an FP8 KV cache: its head size is ${headDim}, and must be a ` +
        `multiple of ${vectorBytes}. Leave --kv-cache-dtype out.`,
    );
  }
  const vector = vectorBytes / elementBytes[dtype];
  const widths = { "hidden size": hiddenSize, "intermediate size": intermediateSize };
  for (const [what, width] of Object.entries(widths)) {
    if (width % vector === 0) continue;
    throw new ModelError(
      `Model ${name} cannot run on CUDA: its ${what} is ${width}, and must be a multiple of ` +
        `${vector} in ${dtype}.`,
    );
  }
  if (headDim % 8 !== 0 || headDim > 256) {
    throw new ModelError(
      `Model ${name} cannot run on CUDA: its head size is ${headDim}, and must be a multiple of ` +
        "8 up to 256.",
    );
  }
  if (!Number.isInteger(Math.log2(blockSize))) {
    throw new UsageError(`--block-size ${blockSize}: CUDA takes powers of two, such as 16.`);
  }
}

/** CUDA_ERROR_INVALID_IMAGE and CUDA_ERROR_INVALID_PTX of cuda.h. */
const damagedImage: readonly number[] = [200, 218];

/** What to do about kernels that cannot be loaded. */
function adviceFor(error: Error): string {
  return error instanceof CudaError && damagedImage.includes(error.code)
    ? "The kernels are part of this program, whose file is damaged: install it again."
    : "They need a driver of CUDA 11.8 (520) or later. See `llumnix doctor`, or use --device cpu.";
}

/** One load; its parts are in the order of the calls. */
class Loader {
  readonly #memory: DeviceMemory;
  readonly #stream: bigint;
  readonly #device: DeviceInfo;
  readonly #freeBytes: number;
  readonly #warnings: string[];
  #chooser: CudaTokenChooser | null = null;
  #promptProducts: PromptProducts | null = null;

  readonly lease: DeviceLease;
  readonly model: ResolvedModel;
  readonly libraries: OpenOptions;
  readonly onProgress: OnProgress;

  constructor(readonly cuda: Cuda, readonly spec: ExecutorSpec, readonly args: CudaModelArgs) {
    const { lease, model, libraries, onProgress = () => {}, warnings = [] } = args;
    this.#warnings = [...warnings];
    this.lease = lease;
    this.model = model;
    this.libraries = libraries;
    this.onProgress = onProgress;
    makeCurrent(cuda, "cuda", lease.ordinal);
    this.#device = cuda.deviceInfo(lease.ordinal);
    this.#freeBytes = cuda.memGetInfo().freeBytes;
    this.#memory = new DeviceMemory(cuda);
    this.#stream = cuda.createStream();
  }

  async load(): Promise<Executor> {
    const model = this.#loadModel();
    const { numBlocks, numSwapBlocks } = this.#planCache(await this.#profile(model));
    return this.#executor(model, numBlocks, numSwapBlocks);
  }

  /** Frees what a failed load has taken. */
  abandon(): void {
    try {
      this.cuda.synchronizeStream(this.#stream);
      this.#chooser?.close();
      this.#memory.free();
      this.cuda.destroyStream(this.#stream);
    } catch (error) {
      if (!(error instanceof CudaError)) throw error; // of a device that has failed, all is lost
    }
  }

  #loadModel(): CudaModel {
    const { config, dtype, maxModelLen } = this.model;
    const kernels = this.#loadKernels();
    if (kernels.nativeRefusal !== null) {
      this.#warnings.push(
        "The driver refuses the machine code of the kernels and compiles them instead: decode steps are " +
          `slower, because no kernel starts before the one before has ended. ${kernels.nativeRefusal}. ` +
          "Update the driver (CUDA 13, 580), or if it is new enough, install the program again.",
      );
    }
    const activations = allocateActivations(
      this.#memory,
      config,
      dtype,
      this.#limits(1),
      this.#wantsLibrary() ? this.#tileRows - 1 : 0,
      kernels.partialsBytes(maxModelLen),
      kernels.countersBytes,
    );
    this.cuda.memset(activations.counters, 0, kernels.countersBytes, this.#stream);
    if (!this.#isPlain("sampling")) this.#chooser = this.#loadChooser(activations);
    const weights = this.#loadWeights(kernels);
    this.#openLibrary(kernels, weights);
    return {
      cuda: this.cuda,
      stream: this.#stream,
      memory: this.#memory,
      kernels,
      config,
      weights,
      activations,
      promptProducts: this.#promptProducts,
      chooser: this.#chooser,
    };
  }

  get #tileRows(): number {
    return this.args.promptTileRows ?? PROMPT_TILE_ROWS;
  }

  #wantsLibrary(): boolean {
    return this.spec.options.cudaPromptGemm === "cublaslt";
  }

  /** Tensor cores are what cuBLASLt is for. */
  #libraryHindrance(): string | null {
    if (this.model.dtype === "float32") return "it is used for bfloat16 and float16 only";
    if (this.spec.options.quantization !== null) return "it is not used for quantized weights";
    return this.#isPlain("tensor-cores") ? "tensor-cores is left out by --cuda-plain-paths" : null;
  }

  #openLibrary(kernels: DecoderKernels, { layers: [layer] }: CudaWeights): void {
    if (!this.#wantsLibrary()) return;
    const opened = this.#libraryHindrance() ?? openPromptProducts({
      ...{ cuda: this.cuda, stream: this.#stream, memory: this.#memory, kernels, layer },
      ...{ dtype: this.model.dtype, tileRows: this.#tileRows, libraries: this.libraries },
    });
    if (typeof opened !== "string") {
      this.#promptProducts = opened;
      return;
    }
    this.#warnings.push(
      `--cuda-prompt-gemm cublaslt: the program's own kernels compute prompts, which may be slower, ` +
        `because cuBLASLt cannot: ${opened.replaceAll(/\n\s*/g, " ")}`,
    );
  }

  #loadChooser({ maxLogitsRows, logits }: Activations): CudaTokenChooser {
    return new CudaTokenChooser({
      cuda: this.cuda,
      stream: this.#stream,
      memory: this.#memory,
      kernels: this.#load(() => new SamplingKernels(this.#stream, this.libraries)),
      vocabSize: this.model.config.vocabSize,
      maxSequences: this.spec.options.maxNumSeqs,
      maxRows: maxLogitsRows,
      logits,
    });
  }

  #loadKernels(): DecoderKernels {
    const { config: { numHeads: heads, numKvHeads: kvHeads, headDim }, dtype } = this.model;
    const { quantization, kvCacheDtype } = this.spec.options;
    const shape = { heads, kvHeads, headDim };
    return this.#load(() =>
      new DecoderKernels(
        dtype,
        shape,
        this.#device,
        this.#stream,
        kernelPaths(this.args.plain),
        this.libraries,
        {
          ...(quantization === "fp8" && { weights: "float8_e4m3" }),
          ...(kvCacheDtype === "fp8" && { cache: "float8_e4m3" }),
        },
      )
    );
  }

  #load<T>(kernels: () => T): T {
    try {
      return kernels();
    } catch (error) {
      if (!(error instanceof CudaError || error instanceof LibraryNotFoundError)) throw error;
      throw new UsageError(
        `--device cuda: the kernels cannot be loaded: ${error.message}. ${adviceFor(error)}`,
        { cause: error },
      );
    }
  }

  #loadWeights(kernels: DecoderKernels) {
    const { model, spec, cuda } = this;
    const { config, dtype, maxModelLen } = model, { quantization } = spec.options;
    const place = (address: bigint) =>
      planWeights(config, dtype, maxModelLen, address, quantization);
    const { byteLength } = place(0n);
    const advice = `Use a smaller model${dtype === "float32" ? ", --dtype bfloat16" : ""}, or a ` +
      "device with more memory.";
    const plan = place(this.#memory.allocate(byteLength, `the weights of ${model.name}`, advice));
    const source = openWeights(model, spec.options, (path) => mapFile(path) ?? openByReading(path));
    const uploads = new Uploads(cuda, this.#stream);
    const staging = new DeviceMemory(cuda);
    try {
      const onBytes = (bytes: { doneBytes: number; totalBytes: number }) => {
        this.onProgress({ phase: "weights", ...bytes, detail: source.description });
      };
      const quantizer = quantization === null ? null : {
        ...{ kernels, stagingBytes: UPLOAD_BUFFER_BYTES },
        staging: staging.allocate(UPLOAD_BUFFER_BYTES, "room to quantize weights", advice),
      };
      uploadWeights(uploads, source, plan, config, dtype, maxModelLen, onBytes, quantizer);
    } finally {
      uploads.close();
      cuda.synchronizeStream(this.#stream);
      staging.free();
      source.close();
    }
    return plan.weights;
  }

  /**
   * Runs a short prompt on a cache of one block, so that the driver has taken all memory that it takes
   * for the kernels, and a device that cannot run them fails here.
   * @returns bytes of the device that the model takes without its cache
   */
  async #profile(model: CudaModel): Promise<number> {
    const { layout: { blockSize }, maxModelLen } = this.#info(1, 0);
    const rows = Math.min(blockSize, maxModelLen);
    const transformer = this.#transformer(model, 1, 0);
    const input: StepInput = {
      stepId: 0,
      kind: "prefill",
      removed: [],
      added: [],
      swapOut: new Int32Array(),
      swapIn: new Int32Array(),
      handles: Int32Array.of(0),
      tokenIds: new Int32Array(rows),
      queryStarts: Int32Array.of(0, rows),
      contextLens: Int32Array.of(rows),
      blockTables: Int32Array.of(0),
      maxBlocks: 1,
    };
    const part = { index: 0, firstRow: 0, numRows: rows, contextLen: rows, isLast: true };
    transformer.forward(input, [part]);
    transformer.head.compute([rows - 1]);
    transformer.head.argmax(1);
    await transformer.pool.close();
    transformer.closeCache();
    // Other processes may take and free memory meanwhile: what this one has taken is the least.
    const measured = this.#freeBytes - this.cuda.memGetInfo().freeBytes;
    const isAlone = this.lease.sharedBy === 1;
    return Math.max(this.#memory.bytes, isAlone ? measured : 0);
  }

  #planCache(usedBytes: number): KvCapacity {
    const { spec: { options }, model } = this;
    const { layout } = this.#info(1, 0);
    const isAlone = this.lease.sharedBy === 1;
    const availableBytes = isAlone ? this.#freeBytes : this.#device.totalBytes;
    const { numBlocks } = planKvCache({
      layout,
      availableBytes,
      unclaimedBytes: availableBytes, // claims are of host memory
      addressableBytes: Infinity,
      weightBytes: usedBytes,
      memoryUtilization: options.gpuMemoryUtilization,
      hostShare: this.lease.sharedBy,
      numBlocksOverride: options.numGpuBlocksOverride,
      swapSpaceGiB: 0, // it is not on the device
      usesSwap: false,
      maxNumSeqs: options.maxNumSeqs,
      maxModelLen: model.maxModelLen,
    });
    const swapBytes = options.preemptionMode === "swap" ? options.swapSpace * 2 ** 30 : 0;
    const numSwapBlocks = Math.min(numBlocks, Math.floor(swapBytes / blockBytes(layout)));
    return { numBlocks, numSwapBlocks };
  }

  #executor(model: CudaModel, numBlocks: number, numSwapBlocks: number): Executor {
    const bytes = blockBytes(this.#info(numBlocks, numSwapBlocks).layout);
    const totalBytes = (numBlocks + numSwapBlocks) * bytes;
    const detail = `${numBlocks} blocks of ${this.spec.options.blockSize} tokens on the device` +
      (numSwapBlocks > 0 ? `, ${numSwapBlocks} in pinned memory for swapping` : "");
    this.onProgress({ phase: "kv-cache", doneBytes: 0, totalBytes, detail });
    const transformer = this.#transformer(model, numBlocks, numSwapBlocks);
    this.onProgress({ phase: "kv-cache", doneBytes: totalBytes, totalBytes, detail });
    transformer.whenClosed = () => this.lease.release();
    return new TransformerExecutor(transformer);
  }

  #transformer(model: CudaModel, numBlocks: number, numSwapBlocks: number): CudaTransformer {
    const info = this.#info(numBlocks, numSwapBlocks);
    const { layout } = info;
    const { cuda, lease: { ordinal } } = this;
    const address = allocateBlocks(cuda, layout, numBlocks);
    const swapAddress = this.#swapBlocks(info, address);
    const pool = new CudaKvPool({ cuda, layout, numBlocks, address, ordinal });
    const swap = new CudaSwap(
      cuda,
      layout,
      { address, numBlocks },
      { address: swapAddress, numBlocks: numSwapBlocks },
    );
    return new CudaTransformer(model, { info, pool, swap, swapAddress, graphs: this.#graphs() });
  }

  /** As vLLM: graphs unless `--enforce-eager`, of contexts up to `--max-seq-len-to-capture`. */
  #graphs(): DecodeGraphs | null {
    const { maxSeqLenToCapture } = this.spec.options;
    if (this.#isPlain("graphs")) return null;
    const maxContextLen = Math.min(maxSeqLenToCapture, this.model.maxModelLen);
    const { maxRows } = this.#limits(1);
    const driver = GraphDriver.open(this.libraries);
    return new DecodeGraphs(driver, this.#stream, { maxRows, maxContextLen });
  }

  #isPlain(path: CudaPath): boolean {
    return this.args.plain.includes(path);
  }

  #swapBlocks({ layout, numSwapBlocks }: ExecutorInfo, blocks: bigint): bigint {
    try {
      return allocateSwapBlocks(this.cuda, layout, numSwapBlocks);
    } catch (error) {
      this.cuda.free(blocks);
      throw error;
    }
  }

  #limits(numBlocks: number): SliceLimits {
    const { config: { vocabSize }, maxModelLen } = this.model;
    const { blockSize, maxNumSeqs } = this.spec.options;
    const maxRows = rowsOfSlice(maxModelLen, maxNumSeqs);
    return { maxRows, maxModelLen, blockSize, numBlocks, vocabSize };
  }

  #info(numBlocks: number, numSwapBlocks: number): ExecutorInfo {
    const { config, dtype, maxModelLen, identity } = this.model;
    const { quantization, kvCacheDtype } = this.spec.options;
    const layout: KvLayout = {
      format: "k-then-v",
      dtype: kvCacheDtype === "fp8" ? "float8_e4m3" : dtype,
      numLayers: config.numLayers,
      numKvHeads: config.numKvHeads,
      headDim: config.headDim,
      blockSize: this.spec.options.blockSize,
      ...(this.#promptProducts && { promptProducts: this.#promptProducts.library.identity }),
    };
    const { library: { softwareDevice } } = this.cuda;
    const { name, totalBytes, ordinal } = this.#device;
    const device = softwareDevice ? "the software device" : `${name}, ${shownSize(totalBytes)}`;
    return {
      description: `cuda:${ordinal} (${device})`,
      model: identity,
      dtype: servedType(dtype, quantization),
      vocabSize: config.vocabSize,
      maxModelLen,
      maxPieceTokens: this.#limits(numBlocks).maxRows,
      layout,
      numBlocks,
      numSwapBlocks,
      // On the software device a token of a large model takes long.
      runsAhead: !this.#isPlain("ahead") && !this.#isPlain("sampling"),
      warnings: this.#warnings,
      tokenTimeoutMs: softwareDevice ? 5_000 : 20,
    };
  }
}

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
import type { LocalRanks } from "../../../ffi/nccl/local_ranks.ts";
import { servedType } from "../../core/dtype.ts";
import { ModelError, UsageError } from "../../core/errors.ts";
import type { EngineOptions } from "../../core/options.ts";
import { blockBytes, type KvLayout, shardLayout } from "../../kv/layout.ts";
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
import { type Activations, allocateActivations, configOfRank, rowsOfSlice } from "./activations.ts";
import { endCommunicators, openCommunicators } from "./communicators.ts";
import { CudaTokenChooser } from "./cuda_token_chooser.ts";
import { CudaTransformer } from "./cuda_transformer.ts";
import type { CudaBlocks, CudaModel } from "./cuda_model.ts";
import { DecodeGraphs } from "./decode_graphs.ts";
import { type DeviceLease, leaseDevices } from "./device_lease.ts";
import { DeviceMemory } from "./device_memory.ts";
import { type CudaPath, kernelPaths, plainPathsOf } from "./paths.ts";
import { openPromptProducts, PROMPT_TILE_ROWS, type PromptProducts } from "./prompt_products.ts";
import { Ranks } from "./ranks.ts";
import { UPLOAD_BUFFER_BYTES, Uploads } from "./uploads.ts";
import { type CudaWeights, planWeights, type RankOf, uploadWeights } from "./weights.ts";

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
  const lease = await leaseDevices(cuda, {
    numInstances: spec.hostShare,
    devicesEach: options.tensorParallelSize,
    allowShared: options.allowSharedDevice,
  });
  try {
    const { softwareDevice } = cuda.library;
    const warnings: string[] = [];
    let plain: readonly CudaPath[] = asked;
    for (const info of differentDevices(cuda, lease)) {
      refuseDevice(model, info, options);
      const device = { info, driverVersion: cuda.driverVersion(), softwareDevice };
      onProgress({
        ...{ phase: "kernels", doneBytes: 0, totalBytes: 0 },
        detail: `testing and compiling kernels for ${info.name}`,
      });
      const tested = await selfTest?.(model, device, options, plain);
      if (tested === undefined) continue;
      plain = tested.plain; // also for the next one: what the ranks compute must be alike
      warnings.push(...tested.warnings);
    }
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
    await loader.abandon();
    throw error;
  }
}

/** Devices of a lease of which each stands for those of its kind. */
function differentDevices(cuda: Cuda, { ordinals }: DeviceLease): DeviceInfo[] {
  const kinds = new Map<string, DeviceInfo>();
  for (const ordinal of ordinals) {
    const info = cuda.deviceInfo(ordinal);
    kinds.set(`${info.name} ${info.computeCapability}`, info);
  }
  return [...kinds.values()];
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
  { blockSize, quantization, kvCacheDtype, tensorParallelSize: ranks }: EngineOptions,
): void {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim, vocabSize } = config;
  const divided = {
    ...{ "attention heads": numHeads, "key-value heads": numKvHeads },
    ...{ "hidden size": hiddenSize, "intermediate size": intermediateSize },
  };
  for (const [what, number] of Object.entries(divided)) {
    if (number % ranks === 0) continue;
    throw new UsageError(
      `--tensor-parallel-size ${ranks}: the model ${name} cannot be divided among ${ranks} devices, ` +
        `because its ${what} (${number}) cannot. Choose a divisor.`,
    );
  }
  // Else more than the last two parts of the head would overlap.
  if (vocabSize < (ranks - 1) ** 2) {
    throw new UsageError(
      `--tensor-parallel-size ${ranks}: the vocabulary of the model ${name} (${vocabSize}) is too small ` +
        `for ${ranks} devices. Choose a smaller number.`,
    );
  }
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
  const widths = {
    "hidden size": hiddenSize,
    [ranks === 1 ? "intermediate size" : "intermediate size on a device"]: intermediateSize / ranks,
  };
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

/** A device of a load. */
interface LoadingRank extends RankOf {
  readonly info: DeviceInfo;
  /** Before anything is loaded. */
  readonly freeBytes: number;
  readonly memory: DeviceMemory;
  readonly stream: bigint;
}

/** One load; its parts are in the order of the calls. */
class Loader {
  readonly #loading: LoadingRank[] = [];
  readonly #warnings: string[];
  #communicators: LocalRanks | null = null;
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
    const ranks = lease.ordinals.length;
    for (const [rank, ordinal] of lease.ordinals.entries()) {
      makeCurrent(cuda, "cuda", ordinal);
      this.#loading.push({
        ...{ rank, ranks, info: cuda.deviceInfo(ordinal), freeBytes: cuda.memGetInfo().freeBytes },
        ...{ memory: new DeviceMemory(cuda), stream: cuda.createStream() },
      });
    }
  }

  async load(): Promise<Executor> {
    const { ordinals } = this.lease;
    if (ordinals.length > 1) this.#communicators = openCommunicators(ordinals, this.libraries);
    const model = this.#loadModel();
    const { numBlocks, numSwapBlocks } = this.#planCache(await this.#profile(model));
    return this.#executor(model, numBlocks, numSwapBlocks);
  }

  /** Frees what a failed load has taken. */
  async abandon(): Promise<void> {
    try {
      for (const { stream } of this.#loading) this.cuda.synchronizeStream(stream);
      this.#chooser?.close();
      await endCommunicators(this.#communicators);
      this.#each(({ memory, stream }) => {
        memory.free();
        this.cuda.destroyStream(stream);
      });
    } catch (error) {
      if (!(error instanceof CudaError)) throw error; // of a device that has failed, all is lost
    }
  }

  /** Calls `action` for each device, which is current meanwhile. */
  #each<T>(action: (rank: LoadingRank) => T): T[] {
    return this.#loading.map((rank) => {
      this.cuda.setDevice(rank.info.ordinal);
      return action(rank);
    });
  }

  #loadModel(): CudaModel {
    const { config } = this.model;
    const kernels = this.#each((rank) => this.#loadKernels(rank));
    const [{ nativeRefusal }] = kernels;
    if (nativeRefusal !== null) {
      this.#warnings.push(
        "The driver refuses the machine code of the kernels and compiles them instead: decode steps are " +
          `slower, because no kernel starts before the one before has ended. ${nativeRefusal}. ` +
          "Update the driver (CUDA 13, 580), or if it is new enough, install the program again.",
      );
    }
    const activations = this.#each((rank) => this.#allocate(rank, kernels[rank.rank]));
    const first = this.#loading[0];
    this.cuda.setDevice(first.info.ordinal);
    if (!this.#isPlain("sampling")) this.#chooser = this.#loadChooser(first, activations[0]);
    const weights = this.#loadWeights(kernels);
    this.cuda.setDevice(first.info.ordinal);
    this.#openLibrary(first, kernels[0], weights[0]);
    const all = this.#loading.map(({ info: { ordinal }, stream, memory }, rank) => ({
      ...{ ordinal, stream, memory, kernels: kernels[rank], weights: weights[rank] },
      activations: activations[rank],
    }));
    return {
      cuda: this.cuda,
      config,
      ranks: new Ranks(this.cuda, all, this.#communicators),
      promptProducts: this.#promptProducts,
      chooser: this.#chooser,
    };
  }

  #allocate(rank: LoadingRank, kernels: DecoderKernels): Activations {
    const { config, dtype, maxModelLen } = this.model;
    const activations = allocateActivations(
      rank.memory,
      config,
      dtype,
      this.#limits(1),
      this.#wantsLibrary() ? this.#tileRows - 1 : 0,
      kernels.partialsBytes(maxModelLen),
      kernels.countersBytes,
      rank,
    );
    this.cuda.memset(activations.counters, 0, kernels.countersBytes, rank.stream);
    return activations;
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
    if (this.#loading.length > 1) return "it is not used with --tensor-parallel-size";
    return this.#isPlain("tensor-cores") ? "tensor-cores is left out by --cuda-plain-paths" : null;
  }

  #openLibrary(
    { memory, stream }: LoadingRank,
    kernels: DecoderKernels,
    { layers: [layer] }: CudaWeights,
  ): void {
    if (!this.#wantsLibrary()) return;
    const opened = this.#libraryHindrance() ?? openPromptProducts({
      ...{ cuda: this.cuda, stream, memory, kernels, layer },
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

  #loadChooser(
    { memory, stream }: LoadingRank,
    { maxLogitsRows, logits }: Activations,
  ): CudaTokenChooser {
    return new CudaTokenChooser({
      cuda: this.cuda,
      stream,
      memory,
      kernels: this.#load(() => new SamplingKernels(stream, this.libraries)),
      vocabSize: this.model.config.vocabSize,
      maxSequences: this.spec.options.maxNumSeqs,
      maxRows: maxLogitsRows,
      logits,
    });
  }

  #loadKernels({ info, stream, ...rank }: LoadingRank): DecoderKernels {
    const { config, dtype } = this.model;
    const { numHeads: heads, numKvHeads: kvHeads, headDim } = configOfRank(config, rank);
    const { quantization, kvCacheDtype } = this.spec.options;
    const shape = { heads, kvHeads, headDim };
    return this.#load(() =>
      new DecoderKernels(
        dtype,
        shape,
        info,
        stream,
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

  #loadWeights(kernels: readonly DecoderKernels[]): CudaWeights[] {
    const { model, spec, cuda } = this;
    const { config, dtype, maxModelLen } = model, { quantization } = spec.options;
    const advice = `Use a smaller model${dtype === "float32" ? ", --dtype bfloat16" : ""}, or a ` +
      "device with more memory.";
    const plans = this.#each((rank) => {
      const place = (address: bigint) =>
        planWeights(config, dtype, maxModelLen, address, quantization, rank);
      const { byteLength } = place(0n);
      return place(rank.memory.allocate(byteLength, `the weights of ${model.name}`, advice));
    });
    const source = openWeights(model, spec.options, (path) => mapFile(path) ?? openByReading(path));
    const staging = new DeviceMemory(cuda);
    const targets = this.#each(({ stream, rank }) => ({
      plan: plans[rank],
      uploads: new Uploads(cuda, stream),
      quantizer: quantization === null ? null : {
        ...{ kernels: kernels[rank], stagingBytes: UPLOAD_BUFFER_BYTES },
        staging: staging.allocate(UPLOAD_BUFFER_BYTES, "room to quantize weights", advice),
      },
    }));
    try {
      const onBytes = (bytes: { doneBytes: number; totalBytes: number }) => {
        this.onProgress({ phase: "weights", ...bytes, detail: source.description });
      };
      const onTarget = (rank: number) => cuda.setDevice(this.#loading[rank].info.ordinal);
      uploadWeights(targets, source, config, dtype, maxModelLen, onBytes, onTarget);
    } finally {
      for (const { uploads } of targets) uploads.close();
      for (const { stream } of this.#loading) cuda.synchronizeStream(stream);
      staging.free();
      source.close();
    }
    return plans.map(({ weights }) => weights);
  }

  /**
   * Runs a short prompt on a cache of one block, so that the driver has taken all memory that it takes
   * for the kernels, and a device that cannot run them fails here.
   * @returns bytes of each device that the model takes without its cache
   */
  async #profile(model: CudaModel): Promise<number[]> {
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
    return this.#each(({ memory, freeBytes }) => {
      // Other processes may take and free memory meanwhile: what this one has taken is the least.
      const measured = freeBytes - this.cuda.memGetInfo().freeBytes;
      const isAlone = this.lease.sharedBy === 1;
      return Math.max(memory.bytes, isAlone ? measured : 0);
    });
  }

  /** The cache that fits into the memory of every device. */
  #planCache(usedBytes: readonly number[]): KvCapacity {
    const { spec: { options }, model } = this;
    const layout = shardLayout(this.#info(1, 0).layout);
    const isAlone = this.lease.sharedBy === 1;
    const numBlocks = Math.min(
      ...this.#loading.map(({ freeBytes, info, rank }) => {
        const availableBytes = isAlone ? freeBytes : info.totalBytes;
        return planKvCache({
          layout,
          availableBytes,
          unclaimedBytes: availableBytes, // claims are of host memory
          addressableBytes: Infinity,
          weightBytes: usedBytes[rank],
          memoryUtilization: options.gpuMemoryUtilization,
          hostShare: this.lease.sharedBy,
          numBlocksOverride: options.numGpuBlocksOverride,
          swapSpaceGiB: 0, // it is not on the device
          usesSwap: false,
          maxNumSeqs: options.maxNumSeqs,
          maxModelLen: model.maxModelLen,
        }).numBlocks;
      }),
    );
    const swapBytes = options.preemptionMode === "swap" ? options.swapSpace * 2 ** 30 : 0;
    const blockBytesOfAll = blockBytes(layout) * this.#loading.length;
    const numSwapBlocks = Math.min(numBlocks, Math.floor(swapBytes / blockBytesOfAll));
    return { numBlocks, numSwapBlocks };
  }

  #executor(model: CudaModel, numBlocks: number, numSwapBlocks: number): Executor {
    const bytes = blockBytes(this.#info(numBlocks, numSwapBlocks).layout);
    const totalBytes = (numBlocks + numSwapBlocks) * bytes;
    const devices = this.#loading.length === 1 ? "the device" : `${this.#loading.length} devices`;
    const detail = `${numBlocks} blocks of ${this.spec.options.blockSize} tokens on ${devices}` +
      (numSwapBlocks > 0 ? `, ${numSwapBlocks} in pinned memory for swapping` : "");
    this.onProgress({ phase: "kv-cache", doneBytes: 0, totalBytes, detail });
    const transformer = this.#transformer(model, numBlocks, numSwapBlocks);
    this.onProgress({ phase: "kv-cache", doneBytes: totalBytes, totalBytes, detail });
    transformer.whenClosed = () => this.lease.release();
    return new TransformerExecutor(transformer);
  }

  #transformer(model: CudaModel, numBlocks: number, numSwapBlocks: number): CudaTransformer {
    const { cuda } = this;
    const info = this.#info(numBlocks, numSwapBlocks);
    const blocks: CudaBlocks[] = [];
    try {
      this.#each(() => blocks.push(this.#allocateBlocks(info)));
    } catch (error) {
      for (const { address, swapAddress } of blocks) freeBlocks(cuda, address, swapAddress);
      throw error;
    }
    const [first, ...others] = this.lease.ordinals.map((ordinal, rank) => ({
      ...{ ordinal, address: blocks[rank].address },
    }));
    const pool = new CudaKvPool({ cuda, layout: info.layout, numBlocks, ...first, others });
    return new CudaTransformer(model, { info, pool, blocks, graphs: this.#graphs() });
  }

  /** Blocks on the current device. */
  #allocateBlocks({ layout: whole, numBlocks, numSwapBlocks }: ExecutorInfo): CudaBlocks {
    const { cuda } = this, layout = shardLayout(whole);
    const address = allocateBlocks(cuda, layout, numBlocks);
    try {
      const swapAddress = allocateSwapBlocks(cuda, layout, numSwapBlocks);
      const swap = new CudaSwap(
        cuda,
        layout,
        { address, numBlocks },
        { address: swapAddress, numBlocks: numSwapBlocks },
      );
      return { address, swap, swapAddress };
    } catch (error) {
      cuda.free(address);
      throw error;
    }
  }

  /** As vLLM: graphs unless `--enforce-eager`, of contexts up to `--max-seq-len-to-capture`. */
  #graphs(): DecodeGraphs | null {
    const { maxSeqLenToCapture } = this.spec.options;
    // A graph would be of all devices and of NCCL's kernels: that is not tried.
    if (this.#isPlain("graphs") || this.#loading.length > 1) return null;
    const maxContextLen = Math.min(maxSeqLenToCapture, this.model.maxModelLen);
    const { maxRows } = this.#limits(1);
    const driver = GraphDriver.open(this.libraries);
    return new DecodeGraphs(driver, this.#loading[0].stream, { maxRows, maxContextLen });
  }

  #isPlain(path: CudaPath): boolean {
    return this.args.plain.includes(path);
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
      ...(this.#loading.length > 1 && { shards: this.#loading.length }),
    };
    const { library: { softwareDevice } } = this.cuda;
    const [{ info: { name, totalBytes } }] = this.#loading;
    const device = softwareDevice ? "the software device" : `${name}, ${shownSize(totalBytes)}`;
    return {
      description: `cuda:${this.lease.ordinals.join(",")} (${device})`,
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

function freeBlocks(cuda: Cuda, address: bigint, swapAddress: bigint): void {
  cuda.free(address);
  if (swapAddress !== 0n) cuda.hostFree(swapAddress);
}

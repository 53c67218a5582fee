/** The memory in which decoder.h finds a decoder and its batches: words of 64 bits. */
import {
  type CpuKernels,
  type DecoderBatch,
  type DecoderShape,
  type DecoderWeights,
  type KernelAddress,
  KernelError,
  type KvCacheView,
  type Linear,
} from "./kernels.ts";
import { storageCodes } from "./storage.ts";

export interface DecoderMemory {
  /** `struct decoder` */
  readonly decoder: KernelAddress;
  /** `struct decoder_batch` */
  readonly batch: KernelAddress;
  /** The final hidden states. */
  readonly hidden: KernelAddress;
  readonly maxRows: number;
}

/** Writes `struct decoder`, and allocates what it points to. */
export function decoderMemory(
  kernels: CpuKernels,
  shape: DecoderShape,
  weights: DecoderWeights,
  cache: KvCacheView,
  maxRows: number,
): DecoderMemory {
  const { hiddenSize, numHeads, intermediateSize } = shape;
  const { headDim, numKvHeads } = cache;
  const activation = (width: number) => kernels.alloc(maxRows * width * 4);
  const hidden = activation(hiddenSize);
  const linear = ({ matrix, bias }: Linear) => [matrix.address, bias];
  const words: (bigint | number)[] = [
    ...[storageCodes[weights.embedding.type], shape.roundActivations ? 1 : 0],
    ...[weights.layers.length, hiddenSize, numHeads, numKvHeads, headDim, intermediateSize],
    weights.lmHead.n,
    ...[bitsOf(shape.rmsNormEps), bitsOf(1 / Math.sqrt(headDim))],
    ...[weights.embedding.address, weights.finalNorm, weights.lmHead.address, weights.ropeTable],
    ...[cache.address, storageCodes[cache.type]],
    ...[cache.blockBytes, cache.layerBytes, cache.blockSize],
    ...[activation(hiddenSize), hidden, activation(hiddenSize)],
    ...[activation((numHeads + 2 * numKvHeads) * headDim), activation(numHeads * headDim)],
    ...[activation(2 * intermediateSize), activation(intermediateSize)],
    ...weights.layers.flatMap((layer) => [
      layer.inputNorm,
      ...linear(layer.qkv),
      ...[layer.queryNorm, layer.keyNorm],
      ...linear(layer.output),
      layer.postAttentionNorm,
      ...linear(layer.gateUp),
      ...linear(layer.down),
    ]),
  ];
  const decoder = kernels.alloc(words.length * 8), batch = kernels.alloc(batchWords * 8);
  writeWords(kernels, decoder, words);
  return { decoder, batch, hidden, maxRows };
}

const batchWords = 10;

/** Writes `struct decoder_batch`. */
export function writeBatch(kernels: CpuKernels, memory: DecoderMemory, batch: DecoderBatch): void {
  if (batch.numTokens > memory.maxRows) {
    throw new KernelError(
      `decoder: the batch has ${batch.numTokens} rows, expected ${memory.maxRows} at most`,
    );
  }
  writeWords(kernels, memory.batch, [
    ...[batch.numTokens, batch.numSequences, batch.maxBlocks, batch.maxContextLen],
    ...[batch.tokenIds, batch.positions, batch.slots],
    ...[batch.queryStarts, batch.contextLens, batch.blockTables],
  ]);
}

function writeWords(
  kernels: CpuKernels,
  address: KernelAddress,
  words: readonly (bigint | number)[],
) {
  const bytes = kernels.bytes(address, words.length * 8);
  new BigInt64Array(bytes.buffer, bytes.byteOffset, words.length).set(words.map(BigInt));
}

/** The bits of a float64. */
function bitsOf(value: number): bigint {
  return new BigInt64Array(Float64Array.of(value).buffer)[0];
}

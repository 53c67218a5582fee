import type {
  CpuKernels,
  Decoder,
  DecoderBatch,
  DecoderLayer,
  DecoderShape,
  DecoderWeights,
  KernelAddress,
  KvCacheView,
  Linear,
} from "../../ffi/cpu_kernels/kernels.ts";

/** What `CpuKernels.decoder` makes, operation by operation. */
export class DecoderReference implements Decoder {
  readonly #activations: Record<
    "residual" | "normed" | "projected" | "qkv" | "attended" | "gateUp" | "activated",
    KernelAddress
  >;
  readonly #queryWidth: number;
  readonly #keyWidth: number;

  constructor(
    readonly kernels: CpuKernels,
    readonly shape: DecoderShape,
    readonly weights: DecoderWeights,
    readonly cache: KvCacheView,
    maxRows: number,
  ) {
    this.#queryWidth = shape.numHeads * cache.headDim;
    this.#keyWidth = cache.numKvHeads * cache.headDim;
    const matrix = (width: number) => kernels.alloc(maxRows * width * 4);
    this.#activations = {
      residual: matrix(shape.hiddenSize),
      normed: matrix(shape.hiddenSize),
      projected: matrix(shape.hiddenSize),
      qkv: matrix(this.#queryWidth + 2 * this.#keyWidth),
      attended: matrix(this.#queryWidth),
      gateUp: matrix(2 * shape.intermediateSize),
      activated: matrix(shape.intermediateSize),
    };
  }

  forward(batch: DecoderBatch): KernelAddress {
    const { kernels, weights } = this;
    const { residual, normed, projected } = this.#activations;
    const { hiddenSize, rmsNormEps } = this.shape;
    const m = batch.numTokens;
    kernels.embed(weights.embedding, batch.tokenIds, residual, m);
    const firstNorm = weights.layers[0].inputNorm;
    kernels.rmsnorm(residual, firstNorm, normed, m, hiddenSize, rmsNormEps);
    const addAndNorm = (norm: KernelAddress) =>
      kernels.addRmsnorm(residual, projected, norm, normed, m, hiddenSize, rmsNormEps);
    weights.layers.forEach((layer, index) => {
      this.#attend(layer, index, batch);
      addAndNorm(layer.postAttentionNorm);
      this.#feedForward(layer, m);
      addAndNorm(weights.layers[index + 1]?.inputNorm ?? weights.finalNorm);
    });
    return normed;
  }

  #attend(layer: DecoderLayer, index: number, batch: DecoderBatch): void {
    const { kernels, cache } = this;
    const { headDim, numKvHeads } = cache;
    const { numHeads, rmsNormEps } = this.shape;
    const { normed, projected, qkv, attended } = this.#activations;
    const m = batch.numTokens;
    const width = this.#queryWidth + 2 * this.#keyWidth;
    const keys = qkv + BigInt(this.#queryWidth * 4);
    const values = keys + BigInt(this.#keyWidth * 4);
    this.#linear(normed, layer.qkv, qkv, m);
    if (layer.queryNorm) {
      kernels.headRmsnorm(qkv, width, layer.queryNorm, m, numHeads, headDim, rmsNormEps);
      kernels.headRmsnorm(keys, width, layer.keyNorm, m, numKvHeads, headDim, rmsNormEps);
    }
    const { ropeTable } = this.weights;
    kernels.rope(qkv, width, batch.positions, ropeTable, m, numHeads + numKvHeads, headDim);
    kernels.kvWrite(cache, index, keys, values, width, batch.slots, m);
    const scale = 1 / Math.sqrt(headDim), out = this.#queryWidth;
    kernels.attention(cache, index, qkv, width, attended, out, numHeads, batch, scale);
    this.#linear(attended, layer.output, projected, m);
  }

  #feedForward(layer: DecoderLayer, m: number): void {
    const { normed, projected, gateUp, activated } = this.#activations;
    this.#linear(normed, layer.gateUp, gateUp, m);
    this.kernels.siluMul(gateUp, activated, m, this.shape.intermediateSize);
    this.#linear(activated, layer.down, projected, m);
  }

  #linear(x: KernelAddress, { matrix, bias }: Linear, y: KernelAddress, m: number): void {
    this.kernels.gemm(x, matrix.k, matrix, bias, y, matrix.n, m, this.shape.roundActivations);
  }
}

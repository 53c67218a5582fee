import type {
  Address,
  CpuKernels,
  KvCacheView,
  PackedMatrix,
} from "../../../ffi/cpu_kernels/kernels.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { DecoderBatch } from "./batch.ts";
import type { DecoderWeights, LayerWeights, Linear } from "./weights.ts";

/** Activations of one slice, float32 matrices in kernel memory. */
interface Activations {
  /** [rows, hidden]: the residual stream. */
  readonly residual: Address;
  /** [rows, hidden]: input of the next projection. */
  readonly normed: Address;
  /** [rows, hidden]: output of the last projection. */
  readonly projected: Address;
  /** [rows, (heads + 2 kvHeads) headDim] */
  readonly qkv: Address;
  /** [rows, heads headDim] */
  readonly attended: Address;
  /** [rows, 2 intermediate] */
  readonly gateUp: Address;
  /** [rows, intermediate] */
  readonly activated: Address;
}

/** The forward pass of a decoder-only transformer (Llama, Mistral, Qwen2, Qwen3). */
export class Decoder {
  readonly #activations: Activations;
  readonly #queryWidth: number;
  readonly #keyWidth: number;

  /**
   * @param maxRows most rows of a batch
   * @param roundActivations inputs of matrix products are rounded to bfloat16 (bfloat16 models)
   */
  constructor(
    readonly kernels: CpuKernels,
    readonly config: ModelConfig,
    readonly weights: DecoderWeights,
    readonly cache: KvCacheView,
    readonly roundActivations: boolean,
    maxRows: number,
  ) {
    this.#queryWidth = config.numHeads * config.headDim;
    this.#keyWidth = config.numKvHeads * config.headDim;
    const matrix = (width: number) => kernels.alloc(maxRows * width * 4);
    this.#activations = {
      residual: matrix(config.hiddenSize),
      normed: matrix(config.hiddenSize),
      projected: matrix(config.hiddenSize),
      qkv: matrix(this.#queryWidth + 2 * this.#keyWidth),
      attended: matrix(this.#queryWidth),
      gateUp: matrix(2 * config.intermediateSize),
      activated: matrix(config.intermediateSize),
    };
  }

  /**
   * Runs the batch and writes its keys and values to the cache.
   * @returns address of the final hidden states, float32 [numTokens, hidden], until the next call
   */
  forward(batch: DecoderBatch): Address {
    const { kernels, config, weights } = this;
    const { residual, normed, projected } = this.#activations;
    const { hiddenSize, rmsNormEps } = config;
    const m = batch.numTokens;
    kernels.embed(weights.embedding, batch.tokenIds, residual, m);
    const firstNorm = weights.layers[0].inputNorm;
    kernels.rmsnorm(residual, firstNorm, normed, m, hiddenSize, rmsNormEps);
    const addAndNorm = (norm: Address) =>
      kernels.addRmsnorm(residual, projected, norm, normed, m, hiddenSize, rmsNormEps);
    weights.layers.forEach((layer, index) => {
      const nextLayer = weights.layers[index + 1];
      this.#attention(layer, index, batch);
      addAndNorm(layer.postAttentionNorm);
      this.#feedForward(layer, nextLayer?.qkv.matrix ?? weights.lmHead, m);
      addAndNorm(nextLayer?.inputNorm ?? weights.finalNorm);
    });
    return normed;
  }

  /** normed -> projected */
  #attention(layer: LayerWeights, index: number, batch: DecoderBatch): void {
    const { kernels, cache } = this;
    const { numHeads, numKvHeads, headDim, rmsNormEps } = this.config;
    const { normed, projected, qkv, attended } = this.#activations;
    const m = batch.numTokens;
    const width = this.#queryWidth + 2 * this.#keyWidth;
    const queries = qkv;
    const keys = queries + BigInt(this.#queryWidth * 4);
    const values = keys + BigInt(this.#keyWidth * 4);

    this.#linear(normed, layer.qkv, qkv, m, layer.output.matrix);
    if (layer.queryNorm) {
      kernels.headRmsnorm(queries, width, layer.queryNorm, m, numHeads, headDim, rmsNormEps);
      kernels.headRmsnorm(keys, width, layer.keyNorm, m, numKvHeads, headDim, rmsNormEps);
    }
    const { ropeTable } = this.weights;
    // Keys follow the queries, so one call rotates both.
    kernels.rope(queries, width, batch.positions, ropeTable, m, numHeads + numKvHeads, headDim);
    kernels.kvWrite(cache, index, keys, values, width, batch.slots, m);
    const scale = 1 / Math.sqrt(headDim);
    const out = this.#queryWidth;
    kernels.attention(cache, index, queries, width, attended, out, numHeads, batch, scale);
    this.#linear(attended, layer.output, projected, m, layer.gateUp.matrix);
  }

  /** normed -> projected; `next` is multiplied by after it. */
  #feedForward(layer: LayerWeights, next: PackedMatrix, m: number): void {
    const { normed, projected, gateUp, activated } = this.#activations;
    this.#linear(normed, layer.gateUp, gateUp, m, layer.down.matrix);
    this.kernels.siluMul(gateUp, activated, m, this.config.intermediateSize);
    this.#linear(activated, layer.down, projected, m, next);
  }

  /** y [m, n] = x [m, k] W^T + bias, rows without gaps; `next` is multiplied by after it. */
  #linear(x: Address, { matrix, bias }: Linear, y: Address, m: number, next: PackedMatrix): void {
    this.kernels.gemm(x, matrix.k, matrix, bias, y, matrix.n, m, this.roundActivations, next);
  }
}

/** Devices and models that have built-in profiles: facts from datasheets and config.json files. */
import type { CacheShape } from "./profile.ts";

/** A number and where it comes from. */
export interface Sourced {
  readonly value: number;
  readonly source: string;
}

const from = (value: number, source: string): Sourced => ({ value, source });

/** A GPU as its datasheet describes it. */
export interface Gpu {
  /** Choice of `--gpu-type`. */
  readonly name: string;
  /** Bytes of device memory. */
  readonly memoryBytes: Sourced;
  /** Bytes per second of device memory. */
  readonly memoryBandwidth: Sourced;
  /** Dense float16 and bfloat16 operations per second with tensor cores. */
  readonly flops: Sourced;
  /** Bytes per second between device and host memory, in one direction. */
  readonly hostBandwidth: Sourced;
  /** Bytes per second between two GPUs' hosts that one GPU may count on. */
  readonly network: Sourced;
}

const a10Sheet = "NVIDIA A10 datasheet";
const a100Sheet = "NVIDIA A100 datasheet, 80 GB SXM";
const h100Sheet = "NVIDIA H100 datasheet, SXM";
const h200Sheet = "NVIDIA H200 datasheet, SXM";
const pcie4 = "PCIe 4.0 x16: 64 GB/s in both directions together";
const pcie5 = "PCIe 5.0 x16: 128 GB/s in both directions together";

export const gpus: readonly Gpu[] = [
  {
    name: "a10",
    memoryBytes: from(24e9, a10Sheet),
    memoryBandwidth: from(600e9, a10Sheet),
    flops: from(125e12, a10Sheet),
    hostBandwidth: from(32e9, `${a10Sheet}; ${pcie4}`),
    network: from(8e9, "Llumnix paper, section 6.1: 64 Gb/s network"),
  },
  {
    name: "a100",
    memoryBytes: from(80e9, a100Sheet),
    memoryBandwidth: from(2039e9, a100Sheet),
    flops: from(312e12, a100Sheet),
    hostBandwidth: from(32e9, `${a100Sheet}; ${pcie4}`),
    network: from(25e9, "NVIDIA DGX A100 datasheet: a 200 Gb/s port per GPU"),
  },
  {
    name: "h100",
    memoryBytes: from(80e9, h100Sheet),
    memoryBandwidth: from(3350e9, h100Sheet),
    flops: from(989e12, `${h100Sheet}: 1,979 TFLOPS with sparsity, half of it dense`),
    hostBandwidth: from(64e9, `${h100Sheet}; ${pcie5}`),
    network: from(50e9, "NVIDIA DGX H100 datasheet: a 400 Gb/s port per GPU"),
  },
  {
    name: "h200",
    memoryBytes: from(141e9, h200Sheet),
    memoryBandwidth: from(4800e9, h200Sheet),
    flops: from(989e12, `${h200Sheet}: 1,979 TFLOPS with sparsity, half of it dense`),
    hostBandwidth: from(64e9, `${h200Sheet}; ${pcie5}`),
    network: from(50e9, "NVIDIA DGX H200 datasheet: a 400 Gb/s port per GPU"),
  },
];

/** A model's structure: its config.json, and the number of parameters that follows from it. */
export interface SimulatedModel {
  readonly name: string;
  readonly shape: CacheShape;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly vocabSize: number;
  readonly parameters: Sourced;
}

/** `maxModelLen` is `max_position_embeddings` unless its line says otherwise. */
export const simulatedModels: readonly SimulatedModel[] = [
  {
    name: "llama-7b",
    // The model is made for 2,048 tokens; the paper ran sequences as long as the KV cache
    // (section 6.1), which RoPE permits.
    shape: {
      dtype: "float16",
      numLayers: 32,
      numKvHeads: 32,
      headDim: 128,
      maxModelLen: 16384,
    },
    hiddenSize: 4096,
    intermediateSize: 11008,
    vocabSize: 32000,
    parameters: from(6_738_415_616, "LLaMA paper, table 2 (6.7B); counted from the shapes"),
  },
  {
    name: "llama-3.1-8b",
    shape: {
      dtype: "bfloat16",
      numLayers: 32,
      numKvHeads: 8,
      headDim: 128,
      maxModelLen: 131072,
    },
    hiddenSize: 4096,
    intermediateSize: 14336,
    vocabSize: 128256,
    parameters: from(8_030_261_248, "model card (8.03B); counted from the shapes"),
  },
  {
    name: "qwen2.5-7b",
    shape: {
      dtype: "bfloat16",
      numLayers: 28,
      numKvHeads: 4,
      headDim: 128,
      maxModelLen: 32768,
    },
    hiddenSize: 3584,
    intermediateSize: 18944,
    vocabSize: 152064,
    parameters: from(7_615_616_512, "model card (7.61B); counted from the shapes"),
  },
];

/** The compiled kernels: PTX for every device, and code for compute capability 9.0. */
import attentionPtx from "./attention.ptx" with { type: "text" };
import attentionFp8Ptx from "./attention_fp8.ptx" with { type: "text" };
import decodeAttentionPtx from "./decode_attention.ptx" with { type: "text" };
import decodeAttentionFp8Ptx from "./decode_attention_fp8.ptx" with { type: "text" };
import fp8WeightsPtx from "./fp8_weights.ptx" with { type: "text" };
import linearPtx from "./linear.ptx" with { type: "text" };
import linearFp8Ptx from "./linear_fp8.ptx" with { type: "text" };
import linearFewPtx from "./linear_few.ptx" with { type: "text" };
import linearFewFp8Ptx from "./linear_few_fp8.ptx" with { type: "text" };
import linearManyPtx from "./linear_many.ptx" with { type: "text" };
import linearManyFp8Ptx from "./linear_many_fp8.ptx" with { type: "text" };
import promptAttentionPtx from "./prompt_attention.ptx" with { type: "text" };
import promptAttentionFp8Ptx from "./prompt_attention_fp8.ptx" with { type: "text" };
import rowsPtx from "./rows.ptx" with { type: "text" };
import samplingPtx from "./sampling.ptx" with { type: "text" };
import attentionCubin from "./attention.sm_90a.cubin" with { type: "bytes" };
import attentionFp8Cubin from "./attention_fp8.sm_90a.cubin" with { type: "bytes" };
import decodeAttentionCubin from "./decode_attention.sm_90a.cubin" with { type: "bytes" };
import decodeAttentionFp8Cubin from "./decode_attention_fp8.sm_90a.cubin" with { type: "bytes" };
import fp8WeightsCubin from "./fp8_weights.sm_90a.cubin" with { type: "bytes" };
import linearCubin from "./linear.sm_90a.cubin" with { type: "bytes" };
import linearFp8Cubin from "./linear_fp8.sm_90a.cubin" with { type: "bytes" };
import linearFewCubin from "./linear_few.sm_90a.cubin" with { type: "bytes" };
import linearFewFp8Cubin from "./linear_few_fp8.sm_90a.cubin" with { type: "bytes" };
import linearManyCubin from "./linear_many.sm_90a.cubin" with { type: "bytes" };
import linearManyFp8Cubin from "./linear_many_fp8.sm_90a.cubin" with { type: "bytes" };
import promptAttentionCubin from "./prompt_attention.sm_90a.cubin" with { type: "bytes" };
import promptAttentionFp8Cubin from "./prompt_attention_fp8.sm_90a.cubin" with { type: "bytes" };
import rowsCubin from "./rows.sm_90a.cubin" with { type: "bytes" };
import samplingCubin from "./sampling.sm_90a.cubin" with { type: "bytes" };

interface KernelImage {
  readonly ptx: string;
  readonly sm_90a: Uint8Array<ArrayBuffer>;
}

/** By the names of the sources. */
export const kernelImages = {
  attention: { ptx: attentionPtx, sm_90a: attentionCubin },
  attention_fp8: { ptx: attentionFp8Ptx, sm_90a: attentionFp8Cubin },
  decode_attention: { ptx: decodeAttentionPtx, sm_90a: decodeAttentionCubin },
  decode_attention_fp8: { ptx: decodeAttentionFp8Ptx, sm_90a: decodeAttentionFp8Cubin },
  fp8_weights: { ptx: fp8WeightsPtx, sm_90a: fp8WeightsCubin },
  linear: { ptx: linearPtx, sm_90a: linearCubin },
  linear_fp8: { ptx: linearFp8Ptx, sm_90a: linearFp8Cubin },
  linear_few: { ptx: linearFewPtx, sm_90a: linearFewCubin },
  linear_few_fp8: { ptx: linearFewFp8Ptx, sm_90a: linearFewFp8Cubin },
  linear_many: { ptx: linearManyPtx, sm_90a: linearManyCubin },
  linear_many_fp8: { ptx: linearManyFp8Ptx, sm_90a: linearManyFp8Cubin },
  prompt_attention: { ptx: promptAttentionPtx, sm_90a: promptAttentionCubin },
  prompt_attention_fp8: { ptx: promptAttentionFp8Ptx, sm_90a: promptAttentionFp8Cubin },
  rows: { ptx: rowsPtx, sm_90a: rowsCubin },
  sampling: { ptx: samplingPtx, sm_90a: samplingCubin },
} as const satisfies Record<string, KernelImage>;

export type KernelFile = keyof typeof kernelImages;

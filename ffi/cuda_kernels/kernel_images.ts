/** The compiled kernels: PTX for every device, and code for compute capability 9.0. */
import attentionPtx from "./attention.ptx" with { type: "text" };
import decodeAttentionPtx from "./decode_attention.ptx" with { type: "text" };
import linearPtx from "./linear.ptx" with { type: "text" };
import linearFewPtx from "./linear_few.ptx" with { type: "text" };
import linearManyPtx from "./linear_many.ptx" with { type: "text" };
import promptAttentionPtx from "./prompt_attention.ptx" with { type: "text" };
import rowsPtx from "./rows.ptx" with { type: "text" };
import attentionCubin from "./attention.sm_90a.cubin" with { type: "bytes" };
import decodeAttentionCubin from "./decode_attention.sm_90a.cubin" with { type: "bytes" };
import linearCubin from "./linear.sm_90a.cubin" with { type: "bytes" };
import linearFewCubin from "./linear_few.sm_90a.cubin" with { type: "bytes" };
import linearManyCubin from "./linear_many.sm_90a.cubin" with { type: "bytes" };
import promptAttentionCubin from "./prompt_attention.sm_90a.cubin" with { type: "bytes" };
import rowsCubin from "./rows.sm_90a.cubin" with { type: "bytes" };

interface KernelImage {
  readonly ptx: string;
  readonly sm_90a: Uint8Array<ArrayBuffer>;
}

/** By the names of the sources. */
export const kernelImages = {
  attention: { ptx: attentionPtx, sm_90a: attentionCubin },
  decode_attention: { ptx: decodeAttentionPtx, sm_90a: decodeAttentionCubin },
  linear: { ptx: linearPtx, sm_90a: linearCubin },
  linear_few: { ptx: linearFewPtx, sm_90a: linearFewCubin },
  linear_many: { ptx: linearManyPtx, sm_90a: linearManyCubin },
  prompt_attention: { ptx: promptAttentionPtx, sm_90a: promptAttentionCubin },
  rows: { ptx: rowsPtx, sm_90a: rowsCubin },
} as const satisfies Record<string, KernelImage>;

export type KernelFile = keyof typeof kernelImages;

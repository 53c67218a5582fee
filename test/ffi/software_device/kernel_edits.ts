/**
 * Mistakes in what the kernels compute. The runs of the kernel file must notice each of them. Most concern NaN, or
 * memory that was never written. Results that are only inexact are not here: `decoder_kernels_test.ts` compares the
 * kernels with float64.
 */

/** Replaces a text that occurs once in a kernel's source or header. */
export interface KernelEdit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** What then goes wrong, for the report. */
  readonly mistake: string;
  /** The kernel file whose runs notice it. */
  readonly run: string;
  /** A missing barrier or wait: the race checker reports it, too. */
  readonly isOrder?: boolean;
}

/** A mistake in what decode and prompt attention share: the runs of each must notice it. */
function inBothAttentions(edit: Omit<KernelEdit, "file" | "run">): KernelEdit[] {
  return ["decode_attention", "prompt_attention"].map((run) => ({
    ...{ file: "attention_tiles.h", run },
    ...edit,
  }));
}

export const kernelEdits: readonly KernelEdit[] = [
  ...inBothAttentions({
    from: "& 0x80808080u) == 0) return;",
    to: "& 0x80808080u) != 1) return;",
    mistake: "NaN of 8 bits is widened to 480",
  }),
  ...inBothAttentions({
    from: "position >= begin && position < end &&",
    to: "position >= begin &&",
    mistake: "slots that no token has been written to are loaded",
  }),
  ...inBothAttentions({
    from: "position >= begin && position < end &&",
    to: "position < end &&",
    mistake: "tokens before the window are loaded",
  }),
  {
    ...{ file: "attention_tiles.h", run: "decode_attention" },
    from: "if (index * tileTokens + token == newest) continue;",
    to: "",
    mistake: "the newest token's place is widened, although nothing was loaded",
    isOrder: true,
  },
  {
    ...{ file: "attention_tiles.h", run: "decode_attention" },
    from: "__syncthreads();  // no warp reads the tile before",
    to: "",
    mistake: "a tile of 8 bits is widened over the one before, which warps still read",
    isOrder: true,
  },
  {
    ...{ file: "decode_attention.cu", run: "decode_attention" },
    from: "if (!isHead || column >= headDim) block.queries[row * pitch<size> + column] = T{0};",
    to: "",
    mistake: "the columns behind a small head hold anything",
  },
  {
    ...{ file: "fp8.h", run: "decode_attention" },
    from: "magnitude != magnitude   ? 0x7f",
    to: "magnitude != magnitude   ? 0x7e",
    mistake: "NaN is stored as 448",
  },
  {
    ...{ file: "fp8.h", run: "attention" },
    from: "if (magnitude == 0x7f) return bitsToFloat(sign | 0x7fc00000);",
    to: "",
    mistake: "the plain kernels widen NaN to 480",
  },
  {
    ...{ file: "fp8.h", run: "decode_attention" },
    from: "narrow(widen(cached), fresh);",
    to: "narrow(value, fresh);",
    mistake: "a token sees its own key and value as they were before they were rounded to 8 bits",
  },
  {
    ...{ file: "attention.cu", run: "attention" },
    from: "to = min(group.end - first, tileTokens);",
    to: "to = tileTokens;",
    mistake: "values that no token has been written to are weighed by 0",
  },
  {
    ...{ file: "fp8_weights.cu", run: "fp8_weights" },
    from: "return a >= b || a != a ? a : b;",
    to: "return a >= b ? a : b;",
    mistake: "a row of weights with NaN gets a finite scale",
  },
  {
    ...{ file: "fp8_weights.cu", run: "fp8_weights" },
    from: "const float scale = largest == 0.0f ? 1.0f : largest / 448.0f;",
    to: "const float scale = largest == 0.0f ? 1.0f : fminf(largest, 65504.0f) / 448.0f;",
    mistake:
      "a row of weights with infinity gets a finite scale, and infinity becomes the largest number",
  },
];

/** Signatures of libcublasLt, as in cublasLt.h of CUDA 11 to 13. Handles and addresses are u64. */
export const cublasLtSymbols = {
  cublasLtGetVersion: { parameters: [], result: "usize" },
  cublasLtGetStatusName: { parameters: ["i32"], result: "pointer" },
  cublasLtGetStatusString: { parameters: ["i32"], result: "pointer" },
  cublasLtCreate: { parameters: ["buffer"], result: "i32" },
  cublasLtDestroy: { parameters: ["u64"], result: "i32" },
  // description*, compute type, scale type
  cublasLtMatmulDescCreate: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cublasLtMatmulDescDestroy: { parameters: ["u64"], result: "i32" },
  cublasLtMatmulDescSetAttribute: { parameters: ["u64", "i32", "buffer", "u64"], result: "i32" },
  // layout*, type, rows, columns, elements from one column to the next
  cublasLtMatrixLayoutCreate: { parameters: ["buffer", "i32", "u64", "u64", "i64"], result: "i32" },
  cublasLtMatrixLayoutDestroy: { parameters: ["u64"], result: "i32" },
  cublasLtMatmulPreferenceCreate: { parameters: ["buffer"], result: "i32" },
  cublasLtMatmulPreferenceDestroy: { parameters: ["u64"], result: "i32" },
  cublasLtMatmulPreferenceSetAttribute: {
    parameters: ["u64", "i32", "buffer", "u64"],
    result: "i32",
  },
  // handle, description, layouts of A, B, C, D, preference, room for results, results*, found*
  cublasLtMatmulAlgoGetHeuristic: {
    parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "buffer", "buffer"],
    result: "i32",
  },
  // handle, description, alpha*, A and layout, B and layout, beta*, C and layout, D and layout,
  // algorithm*, workspace, its bytes, stream
  cublasLtMatmul: {
    parameters: [
      ...["u64", "u64", "buffer", "u64", "u64", "u64", "u64", "buffer"] as const,
      ...["u64", "u64", "u64", "u64", "buffer", "u64", "u64", "u64"] as const,
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

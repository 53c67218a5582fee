import type { BackendKind } from "../backend_kind.ts";

/** NCCL between the devices of two instances, straight from pool to pool: see {@linkcode NcclBackend}. */
export const nccl: BackendKind = {
  name: "nccl",
  needsGroup: true,
  memory: ["device"],
  hostProblem: async () => (await import("./open_nccl.ts")).ncclProblem(),
  open: async (context) => (await import("./open_nccl.ts")).openNccl(context),
};

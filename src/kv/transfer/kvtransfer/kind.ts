import type { BackendKind } from "../backend_kind.ts";

/**
 * The destination reads the source's memory, or by UCX if it is on another host: see
 * {@linkcode KvTransferBackend}.
 */
export const kvtransfer: BackendKind = {
  name: "kvtransfer",
  needsGroup: false,
  memory: ["host", "device", "none"],
  check: ({ migrationBackendTransferType: type }) =>
    type !== "" ? null : "When using kvTransfer as migration backend, do not set " +
      "--migration-backend-transfer-type as empty; choose cuda_ipc or rdma.",
  hostProblem: async (memory) => {
    const { hostConditions, kvTransferProblem } = await import("./host_conditions.ts");
    return kvTransferProblem(memory, hostConditions());
  },
  open: async (context) => (await import("./open_kvtransfer.ts")).openKvTransfer(context),
  runThread: async () => (await import("./pull_thread.ts")).runPullThread(),
};

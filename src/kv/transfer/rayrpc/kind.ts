import type { BackendKind } from "../backend_kind.ts";

/** Calls over the bus of the control plane: see {@linkcode RayRpcBackend}. */
export const rayrpc: BackendKind = {
  name: "rayrpc",
  needsGroup: false,
  memory: ["host", "device", "none"],
  open: async ({ pool, limits, clock, openLinks }) => {
    const { RayRpcBackend } = await import("./rayrpc_backend.ts");
    return new RayRpcBackend({ pool, limits, clock, links: openLinks() });
  },
};

import type { BackendKind, BackendOptions } from "../backend_kind.ts";

/** TCP between the instances of a group, in a thread: see {@linkcode GlooBackend}. */
export const gloo: BackendKind = {
  name: "gloo",
  needsGroup: true,
  memory: ["host", "device", "none"],
  check: fixedPlacement,
  open: async (context) => {
    const { GlooBackend } = await import("./gloo_backend.ts");
    const { instanceId, model, pool, limits, options, host, security, clock } = context;
    const { describePool } = await import("../../pool/open_pool.ts");
    const { layout, numBlocks } = pool;
    return await GlooBackend.open({
      identity: { instanceId, model, layout },
      pool: { address: pool.memory === "host" ? pool.address : null, layout },
      devicePool: pool.memory === "device" ? describePool(pool) : undefined,
      numBlocks,
      host,
      isSealed: security !== null,
      initTimeoutMs: options.migrationBackendInitTimeout * 1000,
      limits,
      clock,
    });
  },
  runThread: async () => (await import("./transfer_thread.ts")).runTransferThread(),
};

/** As in Llumnix, where the manager forms the groups of gloo on its own node. */
function fixedPlacement(options: BackendOptions): string | null {
  if (!options.disableInitInstanceByManager && !options.disableFixedNodeInitInstance) return null;
  return "When using gloo as migration backend, do not set --disable-init-instance-by-manager " +
    "and --disable-fixed-node-init-instance; with --migration-backend rayrpc both can be set.";
}

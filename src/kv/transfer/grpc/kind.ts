import { UsageError } from "../../../core/errors.ts";
import type { BackendKind } from "../backend_kind.ts";

/** The Connect protocol over HTTP/1.1: see {@linkcode GrpcBackend}. */
export const grpc: BackendKind = {
  name: "grpc",
  needsGroup: true,
  memory: ["host", "device", "none"],
  check: ({ migrationBackendServerAddress }) => addressProblem(migrationBackendServerAddress),
  open: async (context) => {
    const { migrationBackendServerAddress: address, migrationBackendInitTimeout } = context.options;
    const problem = addressProblem(address);
    if (problem !== null) throw new UsageError(problem);
    const { GrpcBackend } = await import("./grpc_backend.ts");
    const { instanceId, model, pool, limits, host, security, clock } = context;
    return GrpcBackend.open({
      ...{ instanceId, model, pool, limits, security, clock },
      listenAt: parseAddress(address)!,
      advertisedHost: host,
      initTimeoutMs: migrationBackendInitTimeout * 1000,
    });
  },
};

function addressProblem(address: string): string | null {
  if (parseAddress(address) !== null) return null;
  return `--migration-backend-server-address ${address}: expected HOST:PORT, such as ` +
    "127.0.0.1:50051 or [::1]:50051; port 0 takes any free port";
}

/** Null if it is not HOST:PORT. */
function parseAddress(address: string): { hostname: string; port: number } | null {
  const found = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/]+)):(\d{1,5})$/.exec(address);
  if (found === null || Number(found[3]) > 65535) return null;
  return { hostname: found[1] ?? found[2], port: Number(found[3]) };
}

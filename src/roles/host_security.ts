/** What migration backends make of the cluster's key. */
import type { ClusterKey } from "../bus/tcp.ts";
import { isLoopback } from "../core/hosts.ts";
import type { HostSecurity } from "../kv/transfer/backend_kind.ts";

/**
 * How instances of different hosts know each other.
 * @param host where others reach this instance; null if all processes are on this host
 * @returns null if no connection leaves this host, or the operator wants no protection
 */
export async function hostSecurity(
  key: ClusterKey | null,
  host: string | null,
): Promise<HostSecurity | null> {
  if (host === null || isLoopback(host) || key === null || key === "insecure") return null;
  const { makeCredentials, membershipToken, TLS_NAME } = await import("../bus/tls/authority.ts");
  const [credentials, token] = await Promise.all([makeCredentials(key), membershipToken(key)]);
  return { ...credentials, serverName: TLS_NAME, token };
}

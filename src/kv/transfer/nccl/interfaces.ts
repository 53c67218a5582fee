/** Read by libnccl when it makes its first communicator. */
const INTERFACES = "NCCL_SOCKET_IFNAME";

/**
 * Keeps NCCL's sockets, which prove nothing, at the loopback interface if all instances are on this host.
 * By default NCCL listens at the host's addresses on the network.
 */
export function keepToHost(host: string, env: Pick<Deno.Env, "has" | "set"> = Deno.env): void {
  const isAlone = host.startsWith("127.") || host === "::1";
  if (isAlone && !env.has(INTERFACES)) env.set(INTERFACES, "lo");
}

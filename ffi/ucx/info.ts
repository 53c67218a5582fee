/** What UCX prints about contexts and endpoints, read for the transports in it. */

/** A way to send: a transport over a device. */
export interface TransportDevice {
  /** "tcp", "rc_mlx5", "cuda_ipc", "posix". */
  readonly transport: string;
  /** "eth0", "mlx5_0:1", "cuda", "memory". */
  readonly device: string;
}

/** A part of a connection. */
export interface Lane extends TransportDevice {
  /**
   * What the lane is for: "rma_bw" carries puts and gets, "am" short messages. UCX 1.13 leaves it
   * empty for lanes of one host.
   */
  readonly uses: readonly string[];
}

/** The lines "resource 2 : md 1 dev 2 flags -- tcp/lo" of `ucp_context_print_info`. */
export function devicesOf(info: string): TransportDevice[] {
  const lines = info.matchAll(/^#\s+resource \d+\s+:.* flags \S+ ([^/\s]+)\/(\S+)/gm);
  return [...lines].map(([, transport, device]) => ({ transport, device }));
}

/**
 * The lines "lane[1]: 5:cma/memory.0 md[4] -> md[4]/cma/sysdev[255] seg 4096 rma_bw#0 am" of
 * `ucp_ep_print_info`. A ".0" after the device is the path over it.
 */
export function lanesOf(info: string): Lane[] {
  const lines = info.matchAll(/^#\s+lane\[\d+\]:\s+\d+:([^/\s]+)\/(\S+?)(?:\.\d+)? md\[(.*)$/gm);
  return [...lines].map(([, transport, device, rest]) => {
    const words = rest.replace(/^.*sysdev\[\d+\]/, "").replace(/\bseg \d+/, "").trim().split(/\s+/);
    const uses = words.filter((word) => word !== "").map((word) => word.replace(/#\d+$/, ""));
    return { transport, device, uses };
  });
}

import attention from "./attention.ptx" with { type: "text" };
import linear from "./linear.ptx" with { type: "text" };
import rows from "./rows.ptx" with { type: "text" };
import sampling from "./sampling.ptx" with { type: "text" };

/** A hash of all kernels of a decoder: another program with the same one has the same kernels. */
export async function kernelFingerprint(): Promise<string> {
  const bytes = new TextEncoder().encode([attention, linear, rows, sampling].join("\0"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

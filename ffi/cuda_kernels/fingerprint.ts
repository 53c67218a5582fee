import { kernelImages } from "./kernel_images.ts";

/** A hash of all kernels of a decoder: another program with the same one has the same kernels. */
export async function kernelFingerprint(): Promise<string> {
  const texts = Object.values(kernelImages).map(({ ptx }) => ptx);
  const bytes = new TextEncoder().encode(texts.join("\0"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

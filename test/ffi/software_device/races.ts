/** Reports of the race checker. */
import { directory } from "./device.ts";

const symbols = {
  llumnixRaceReports: { parameters: ["buffer", "u64"], result: "u64" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The reports since the last call. @param library "checked", or the path of a library of kernels */
export function takeRaces(library: string): string[] {
  const path = library === "checked" ? `${directory}libllumnix_kernels_checked.so` : library;
  const text = new Uint8Array(1 << 20);
  Deno.dlopen(path, symbols).symbols.llumnixRaceReports(text, BigInt(text.byteLength));
  return new TextDecoder().decode(text.subarray(0, text.indexOf(0))).split("\n").filter(Boolean);
}

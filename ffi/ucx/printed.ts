import { openLibC } from "../libc.ts";
import { bytesAt } from "../memory.ts";

const symbols = {
  open_memstream: { parameters: ["buffer", "buffer"], result: "u64" },
  fclose: { parameters: ["u64"], result: "i32" },
  free: { parameters: ["u64"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

/**
 * The text that `print` writes to a FILE of C.
 * @param print gets the FILE*
 */
export function printed(print: (stream: bigint) => void): string {
  const c = openLibC(symbols);
  if (c === null) return "";
  // The C library writes to them at fclose: they must not move.
  const text = new BigUint64Array(new ArrayBuffer(8)),
    length = new BigUint64Array(new ArrayBuffer(8));
  const stream = c.open_memstream(text, length);
  if (stream === 0n) return "";
  print(stream);
  c.fclose(stream);
  if (text[0] === 0n) return "";
  const bytes = bytesAt(text[0], Number(length[0])).slice();
  c.free(text[0]);
  return new TextDecoder().decode(bytes);
}

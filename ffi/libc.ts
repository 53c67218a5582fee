/** Memory and files mapped into it, by the C library through FFI. */

const symbols = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  mmap: { parameters: ["u64", "usize", "i32", "i32", "i32", "i64"], result: "u64" },
  munmap: { parameters: ["u64", "usize"], result: "i32" },
  getpagesize: { parameters: [], result: "i32" },
  madvise: { parameters: ["u64", "usize", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type LibC = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** Names of the C library: glibc, musl, macOS. */
const candidates: Readonly<Partial<Record<typeof Deno.build.os, readonly string[]>>> = {
  linux: ["libc.so.6", `libc.musl-${Deno.build.arch}.so.1`],
  darwin: ["/usr/lib/libSystem.B.dylib"],
};

// The same values on Linux and macOS: sys/mman.h, fcntl.h.
const O_RDONLY = 0;
const PROT_READ = 1;
const MAP_PRIVATE = 2;
const MADV_SEQUENTIAL = 2;
const MAP_FAILED = 0xffffffffffffffffn;
/** Linux only, from 5.14 on. */
const MADV_POPULATE_WRITE = 23;

let loaded: LibC | null | undefined;

/** The C library, or null where none of the known ones is. It stays open for the process's life. */
function libc(): LibC | null {
  return loaded === undefined ? loaded = openLibC(symbols) : loaded;
}

/** Functions of the C library, or null where none of the known ones is. Never to be closed. */
export function openLibC<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S>["symbols"] | null {
  for (const name of candidates[Deno.build.os] ?? []) {
    try {
      return Deno.dlopen(name, symbols).symbols;
    } catch {
      // The next candidate may be there.
    }
  }
  return null;
}

/**
 * Gives memory of this process its pages, as writing it would, and leaves what is written there: the
 * first one to write a page waits for it, for milliseconds where it is a huge one that a virtual
 * machine has to ask its host for.
 * @returns false where the system does not have it: then nothing has happened
 */
export function populate(address: bigint, byteLength: number): boolean {
  const c = Deno.build.os === "linux" ? libc() : null;
  if (c === null) return false;
  const start = address - address % BigInt(c.getpagesize());
  return c.madvise(start, address + BigInt(byteLength) - start, MADV_POPULATE_WRITE) === 0;
}

/** A file mapped read-only. */
export interface MappedFile {
  readonly byteLength: number;
  /**
   * View of a range of the file. It must not be used after `close`, nor when the file has become
   * shorter since: either ends the process.
   */
  slice(offset: number, byteLength: number): Uint8Array;
  close(): void;
}

/**
 * Maps a file for one sequential read.
 * @returns null where files cannot be mapped: no known C library, or a file system without mmap
 * @throws {Deno.errors.NotFound} and other errors of the system when it cannot be opened
 */
export function mapFile(path: string): MappedFile | null {
  const byteLength = Deno.statSync(path).size;
  const c = libc();
  if (!c || byteLength === 0) return null;
  const fd = c.open(new TextEncoder().encode(`${path}\0`), O_RDONLY);
  if (fd < 0) return null;
  const address = c.mmap(0n, BigInt(byteLength), PROT_READ, MAP_PRIVATE, fd, 0n);
  c.close(fd);
  if (address === MAP_FAILED) return null;
  c.madvise(address, BigInt(byteLength), MADV_SEQUENTIAL);
  return new Mapping(c, address, byteLength);
}

class Mapping implements MappedFile {
  readonly byteLength: number;
  readonly #libc: LibC;
  #address: bigint | null;

  constructor(libc: LibC, address: bigint, byteLength: number) {
    this.#libc = libc;
    this.#address = address;
    this.byteLength = byteLength;
  }

  slice(offset: number, byteLength: number): Uint8Array {
    if (this.#address === null) throw new Error("slice of a closed mapping");
    if (offset < 0 || byteLength < 0 || offset + byteLength > this.byteLength) {
      throw new RangeError(`bytes ${offset} to ${offset + byteLength} of ${this.byteLength}`);
    }
    const pointer = Deno.UnsafePointer.create(this.#address + BigInt(offset))!;
    return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, byteLength));
  }

  close(): void {
    if (this.#address === null) return;
    this.#libc.munmap(this.#address, BigInt(this.byteLength));
    this.#address = null;
  }
}

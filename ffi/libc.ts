/** Memory and files mapped into it, by the C library through FFI. */
import { cString } from "./memory.ts";

const symbols = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  mmap: { parameters: ["u64", "usize", "i32", "i32", "i32", "i64"], result: "u64" },
  munmap: { parameters: ["u64", "usize"], result: "i32" },
  getpagesize: { parameters: [], result: "i32" },
  madvise: { parameters: ["u64", "usize", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const linux = linuxLibC({
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
});

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

/** Linux only: linux/memfd.h. */
const MFD_CLOEXEC = 1;

let loaded: LibC | null | undefined;

/** The C library, or null if none is found. It stays open for the life of the process. */
function libc(): LibC | null {
  return loaded === undefined ? loaded = openLibC(symbols) : loaded;
}

/** Functions of the C library, or null if none is found. It must not be closed. */
export function openLibC<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S>["symbols"] | null {
  for (const name of candidates[Deno.build.os] ?? []) {
    try {
      return Deno.dlopen(name, symbols).symbols;
    } catch {
      // Try the next name.
    }
  }
  return null;
}

/** Functions of Linux's C library, opened when they are first asked for; null on other systems. */
export function linuxLibC<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): () => Deno.DynamicLibrary<S>["symbols"] | null {
  let opened: Deno.DynamicLibrary<S>["symbols"] | null | undefined;
  return () => {
    if (opened === undefined) opened = Deno.build.os === "linux" ? openLibC(symbols) : null;
    return opened;
  };
}

/**
 * Allocates the pages of a memory range ahead of use, without changing its contents. Otherwise the
 * first write to each page waits for its allocation: milliseconds for a huge page that a virtual
 * machine must get from its host.
 * @returns false, having done nothing, if the system does not support it
 */
export function populate(address: bigint, byteLength: number): boolean {
  const c = Deno.build.os === "linux" ? libc() : null;
  if (c === null) return false;
  const start = address - address % BigInt(c.getpagesize());
  return c.madvise(start, address + BigInt(byteLength) - start, MADV_POPULATE_WRITE) === 0;
}

/**
 * Opens an empty file in memory, which other processes of the user see by its name in /proc/PID/fd.
 * @returns its descriptor; null if the system has none
 */
export function openNamedDescriptor(name: string): number | null {
  const fd = linux()?.memfd_create(cString(name), MFD_CLOEXEC) ?? -1;
  return fd < 0 ? null : fd;
}

export function closeDescriptor(fd: number): void {
  libc()?.close(fd);
}

/** A file mapped read-only. */
export interface MappedFile {
  readonly byteLength: number;
  /**
   * View of a range of the file. Using it after `close`, or after the file was truncated, crashes the
   * process.
   */
  slice(offset: number, byteLength: number): Uint8Array;
  close(): void;
}

/**
 * Maps a file for one sequential read.
 * @returns null if files cannot be mapped: no C library was found, or the file system lacks mmap
 * @throws {Deno.errors.NotFound} and other errors of the system, if the file cannot be opened
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
    if (this.#address === null) throw new Error("cannot slice a closed mapping");
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

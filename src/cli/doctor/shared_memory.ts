/** Memory that two processes map, and copies by the C library. */
import { openLibC } from "../../../ffi/libc.ts";
import { bytesAt, cString } from "../../../ffi/memory.ts";

const symbols = {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  mmap: { parameters: ["u64", "usize", "i32", "i32", "i32", "i64"], result: "u64" },
  munmap: { parameters: ["u64", "usize"], result: "i32" },
  memcpy: { parameters: ["u64", "u64", "usize"], result: "u64" },
} as const satisfies Deno.ForeignLibraryInterface;

const copySymbols = {
  memcpy: { parameters: ["u64", "u64", "usize"], result: "u64", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

// sys/mman.h and fcntl.h of Linux.
const MFD_CLOEXEC = 1, O_RDWR = 2, PROT_READ_WRITE = 3, MAP_SHARED = 1;
const MAP_FAILED = 0xffffffffffffffffn;

/** A mapping that lies in no file system. */
export interface SharedMemory extends Disposable {
  /** By which another process of this user opens it as long as this process keeps it. */
  readonly file: string;
  readonly address: bigint;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Anonymous memory for {@linkcode openShared} of other processes. @throws {Error} not on this system */
export function createShared(byteLength: number): SharedMemory {
  const c = libc();
  const fd = c.memfd_create(cString("llumnix-doctor"), MFD_CLOEXEC);
  if (fd < 0) throw new Error("memfd_create failed");
  if (c.ftruncate(fd, BigInt(byteLength)) !== 0) {
    c.close(fd);
    throw new Error(`ftruncate to ${byteLength} bytes failed`);
  }
  return map(c, fd, `/proc/${Deno.pid}/fd/${fd}`, byteLength);
}

/** Maps another process's memory. @throws {Error} it is not there, or may not be opened */
export function openShared(file: string, byteLength: number): SharedMemory {
  const c = libc();
  const fd = c.open(cString(file), O_RDWR);
  if (fd < 0) throw new Error(`${file} cannot be opened`);
  return map(c, fd, file, byteLength);
}

/** Copies on the calling thread. */
export function copy(destination: bigint, source: bigint, byteLength: number): void {
  libc().memcpy(destination, source, BigInt(byteLength));
}

/** Copies on `threads` other threads at once. */
export async function copyOnThreads(
  destination: bigint,
  source: bigint,
  byteLength: number,
  threads: number,
): Promise<void> {
  const c = openLibC(copySymbols);
  if (c === null) throw new Error("no C library was found");
  const part = BigInt(Math.ceil(byteLength / threads)), end = BigInt(byteLength);
  const copies: Promise<bigint>[] = [];
  for (let at = 0n; at < end; at += part) {
    const bytes = part < end - at ? part : end - at;
    copies.push(c.memcpy(destination + at, source + at, bytes));
  }
  await Promise.all(copies);
}

function libc() {
  if (Deno.build.os !== "linux") throw new Error("only measured on Linux");
  const c = openLibC(symbols);
  if (c === null) throw new Error("no C library was found");
  return c;
}

function map(
  c: ReturnType<typeof libc>,
  fd: number,
  file: string,
  byteLength: number,
): SharedMemory {
  const address = c.mmap(0n, BigInt(byteLength), PROT_READ_WRITE, MAP_SHARED, fd, 0n);
  if (address === MAP_FAILED) {
    c.close(fd);
    throw new Error(`mmap of ${byteLength} bytes failed`);
  }
  return {
    file,
    address,
    bytes: bytesAt(address, byteLength),
    [Symbol.dispose]() {
      c.munmap(address, BigInt(byteLength));
      c.close(fd);
    },
  };
}

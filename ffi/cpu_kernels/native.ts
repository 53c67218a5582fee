import { type KernelAddress, KernelError, type KernelSet } from "./kernels.ts";
import { KernelLibrary, type KernelMemory, kernelSignatures } from "./library.ts";

/** Memory of this process. */
const processMemory: KernelMemory = {
  bytes(address: KernelAddress, byteLength: number): Uint8Array {
    if (byteLength === 0) return new Uint8Array(0);
    const pointer = Deno.UnsafePointer.create(address);
    if (pointer === null) throw new KernelError(`bytes: ${byteLength} bytes at address 0`);
    return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, byteLength));
  },
  eachReadable(rows, rowBytes, use) {
    if (rows.byteLength === 0) return;
    const pointer = Deno.UnsafePointer.of(rows as Uint8Array<ArrayBuffer>);
    use(Deno.UnsafePointer.value(pointer), rows.byteLength / rowBytes);
  },
  exhausted: () => "the system has no memory left for this process",
  close() {},
};

/**
 * Opens a shared library. It stays loaded for the life of the process: several kernel sets in use
 * may share it.
 * @throws {KernelError} the library cannot be loaded, or the system refuses the threads or CPUs
 */
export function openNative(
  set: KernelSet,
  image: string | Uint8Array,
  threads: number,
  cpus: readonly number[] | null,
): KernelLibrary {
  const { symbols } = typeof image === "string"
    ? Deno.dlopen(image, kernelSignatures)
    : openImage(set, image);
  const list = cpus === null ? null : Int32Array.from(cpus);
  const listAddress = list === null ? 0n : Deno.UnsafePointer.value(Deno.UnsafePointer.of(list));
  const handle = symbols.kernels_open(threads, listAddress);
  if (handle === 0n) {
    const pinned = cpus === null ? "" : ` pinned to CPUs ${cpus.join(", ")}`;
    throw new KernelError(`${set} kernels: the system refused ${threads} threads${pinned}`);
  }
  return new KernelLibrary(set, threads, handle, symbols, processMemory);
}

/** Asks Linux to let this process use AMX tile registers (x86-64's arch_prctl). */
export function permitTiles(): boolean {
  const arch_prctl = 158n, ARCH_REQ_XCOMP_PERM = 0x1023n, XFEATURE_XTILEDATA = 18n;
  const libc = Deno.dlopen("libc.so.6", {
    syscall: { parameters: ["i64", "i64", "i64"], result: "i64" },
  });
  const result = libc.symbols.syscall(arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
  libc.close();
  return result === 0n;
}

/** Loads a library from memory: through an anonymous file, or a temporary one if that fails. */
function openImage(set: KernelSet, image: Uint8Array) {
  const libc = Deno.dlopen("libc.so.6", {
    memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  const closeOnExec = 1;
  const name = new TextEncoder().encode(`kernels-${set}\0`);
  const fd = libc.symbols.memfd_create(name, closeOnExec);
  const path = fd >= 0 ? `/proc/self/fd/${fd}` : Deno.makeTempFileSync({ suffix: ".so" });
  try {
    Deno.writeFileSync(path, image);
    return Deno.dlopen(path, kernelSignatures);
  } finally {
    if (fd >= 0) libc.symbols.close(fd);
    else Deno.removeSync(path);
    libc.close();
  }
}

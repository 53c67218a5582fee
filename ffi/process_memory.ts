/**
 * Reads the memory of another process of this host: `process_vm_readv` of Linux. The kernel copies from
 * one process's pages to the other's, so that neither maps anything, and the process that is read does
 * nothing.
 */
import { openLibC } from "./libc.ts";
import { textAt } from "./memory.ts";

const symbols = {
  // pid, local places, their number, remote places, their number, flags
  process_vm_readv: {
    parameters: ["i32", "buffer", "u64", "buffer", "u64", "u64"],
    result: "isize",
  },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
  strerror: { parameters: ["i32"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

// errno.h, sys/prctl.h of Linux.
const EPERM = 1;
const ESRCH = 3;
const PR_SET_PTRACER = 0x59616d61;
const PR_SET_PTRACER_ANY = 0xffffffffffffffffn;

/** Why memory of a process cannot be read. */
export type ReadFailure = "gone" | "forbidden" | "other";

export class ProcessMemoryError extends Error {
  override readonly name = "ProcessMemoryError";
  constructor(
    /** "gone": there is no such process. "forbidden": the system does not allow it to this process. */
    readonly reason: ReadFailure,
    message: string,
  ) {
    super(message);
  }
}

/** Null where the system does not have the call. */
export function openProcessMemory(): ProcessMemory | null {
  if (Deno.build.os !== "linux") return null;
  const c = openLibC(symbols);
  return c === null ? null : new ProcessMemory(c);
}

export class ProcessMemory {
  readonly #c: Deno.DynamicLibrary<typeof symbols>["symbols"];

  constructor(c: Deno.DynamicLibrary<typeof symbols>["symbols"]) {
    this.#c = c;
  }

  /**
   * Lets any process of the same user read this one. Needed only where the kernel's Yama module has
   * `ptrace_scope` 1, which otherwise lets only a process's ancestors read it; UCX does the same.
   */
  allowReaders(): void {
    this.#c.prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0n, 0n, 0n);
  }

  /**
   * Copies from places of a process into places of this one, in order; the two lists may divide the
   * bytes differently. Blocks the thread.
   * @param from pairs of address and byte length, 1024 of them at most; so is `into`
   * @returns bytes copied: the shorter list's, or fewer if a later page is not there
   * @throws {ProcessMemoryError} nothing was copied
   */
  read(
    pid: number,
    from: BigUint64Array<ArrayBuffer>,
    into: BigUint64Array<ArrayBuffer>,
  ): number {
    const count = (places: BigUint64Array) => BigInt(places.length / 2);
    const copied = this.#c.process_vm_readv(
      ...[pid, bytesOf(into), count(into), bytesOf(from), count(from), 0n] as const,
    );
    if (copied > 0n) return Number(copied);
    const code = copied === 0n ? 0 : this.#errno();
    const reason = code === ESRCH ? "gone" : code === EPERM ? "forbidden" : "other";
    const text = code === 0 ? "nothing was copied" : textAt(this.#c.strerror(code));
    throw new ProcessMemoryError(reason, `cannot read the memory of process ${pid}: ${text}`);
  }

  #errno(): number {
    const location = this.#c.__errno_location();
    return location === null ? 0 : new Deno.UnsafePointerView(location).getInt32();
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: BigUint64Array<ArrayBuffer>) {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The software libnccl's controls, which the real one does not have: faults, and what is alive. */
import type { NcclPair } from "../../../ffi/nccl/pair.ts";

const symbols = {
  softNcclCounts: { parameters: ["buffer"], result: "void" },
  softNcclFault: { parameters: ["buffer", "i32", "i64"], result: "i32" },
  softNcclReset: { parameters: [], result: "void" },
} as const;

/** Names of `ffi/software_device/nccl/faults.h`. */
export type Fault =
  | ("INIT_MS" | "RETRY_MS" | "CONNECT_MS" | "GROUP_MS" | "KERNEL_MS" | "MB_PER_S")
  | ("SILENT_DEATH" | "LATE_ERROR_GROUP" | "LATE_ERROR_ENDS" | "CUT_AFTER_BYTES")
  | ("BREAK_AFTER_BYTES" | "ABORT_MS" | "ABORT_WAITS_PEER" | "ABORT_WAITS_DEVICE")
  | ("KERNEL_SLOTS" | "DEVICE");

/** What is alive in this process, and misuses so far. */
export interface Counts {
  readonly communicators: number;
  readonly roots: number;
  readonly threads: number;
  readonly kernels: number;
  readonly sockets: number;
  readonly misuses: number;
}

export class SoftwareNccl {
  readonly #calls: Deno.DynamicLibrary<typeof symbols>["symbols"];

  /** @param path of the software libnccl.so.2 */
  constructor(path: string) {
    this.#calls = Deno.dlopen(path, symbols).symbols;
  }

  counts(): Counts {
    const values = new BigInt64Array(7);
    this.#calls.softNcclCounts(values);
    const [communicators, roots, threads, kernels, sockets, misuses] = [...values].map(Number);
    return { communicators, roots, threads, kernels, sockets, misuses };
  }

  /** Sets a fault for a rank (0 sends, 1 receives), or for both. */
  set(fault: Fault, value: number, rank: 0 | 1 | -1 = -1): void {
    const name = new TextEncoder().encode(`${fault}\0`);
    if (this.#calls.softNcclFault(name, rank, BigInt(value)) !== 0) {
      throw new Error(`the software NCCL has no fault ${fault}`);
    }
  }

  reset(): void {
    this.#calls.softNcclReset();
  }
}

/** The module under test: the real one, or a mutant of it. */
export type PairModule = typeof import("../../../ffi/nccl/pair.ts");
export type Pair = NcclPair;

/** What a host must have so that its instances read each other's memory. */
import { openProcessMemory, ProcessMemoryError } from "../../../../ffi/process_memory.ts";
import { addressOf } from "../../../../ffi/memory.ts";
import { thisProcess } from "./host_process.ts";

const YAMA_SCOPE = "/proc/sys/kernel/yama/ptrace_scope";
const CAP_SYS_PTRACE = 19;

export interface HostConditions {
  readonly isLinux: boolean;
  /** Whether /proc names the start of the host, the namespace and the start of this process. */
  readonly hasProc: boolean;
  /** Why `process_vm_readv` fails even in this process; null if it works. */
  readonly readProblem: string | null;
  /** Yama's `ptrace_scope`, 0 to 3; 0 for a kernel without Yama. */
  readonly ptraceScope: number;
  /** Whether this process may read any process (CAP_SYS_PTRACE). */
  readonly mayTrace: boolean;
}

/** Of this host, as this process sees it. */
export function hostConditions(): HostConditions {
  return {
    isLinux: Deno.build.os === "linux",
    hasProc: hasProc(),
    readProblem: readProblem(),
    ptraceScope: ptraceScope(),
    mayTrace: mayTrace(),
  };
}

/** Why kvtransfer cannot move blocks between pools of this kind on such a host; null if it can. */
export function kvTransferProblem(
  memory: "host" | "device",
  { isLinux, hasProc, readProblem, ptraceScope, mayTrace }: HostConditions,
): string | null {
  if (!isLinux) return "kvtransfer needs Linux; choose rayrpc";
  if (!hasProc) return "/proc cannot be read: instances tell each other's processes apart by it";
  if (memory === "device") return null;
  if (readProblem !== null) {
    return `process_vm_readv is not allowed here: ${readProblem}; a container needs it in its seccomp ` +
      "profile (Docker: --cap-add SYS_PTRACE)";
  }
  if (ptraceScope >= 3) {
    return `${YAMA_SCOPE} is ${ptraceScope}: no process may read another until the host is started ` +
      "again; choose rayrpc or gloo";
  }
  if (ptraceScope === 2 && !mayTrace) {
    return `${YAMA_SCOPE} is 2: a process needs the capability SYS_PTRACE to read another; set it to 1 ` +
      "or less";
  }
  return null;
}

/** Yama's setting: who may read a process's memory. 0 for a kernel without Yama. */
export function ptraceScope(): number {
  try {
    return Number(Deno.readTextFileSync(YAMA_SCOPE).trim());
  } catch {
    return 0;
  }
}

function hasProc(): boolean {
  try {
    return thisProcess().startTicks > 0;
  } catch {
    return false;
  }
}

/** A process may always read itself, unless a seccomp profile forbids the call. */
function readProblem(): string | null {
  const memory = openProcessMemory();
  if (memory === null) return "the C library does not have it";
  const from = new Uint8Array(8), into = new Uint8Array(8);
  const place = (bytes: Uint8Array<ArrayBuffer>) => BigUint64Array.of(addressOf(bytes), 8n);
  try {
    memory.read(Deno.pid, place(from), place(into));
    return null;
  } catch (error) {
    if (!(error instanceof ProcessMemoryError)) throw error;
    return error.message;
  }
}

function mayTrace(): boolean {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
    return (effective >> BigInt(CAP_SYS_PTRACE) & 1n) === 1n;
  } catch {
    return false;
  }
}

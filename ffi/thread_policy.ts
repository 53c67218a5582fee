/** How the system's scheduler treats the calling thread, through FFI. Linux only. */
import { openLibC } from "./libc.ts";

const symbols = {
  sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  nice: { parameters: ["i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// sched.h of Linux; any thread may go from one to the other and back.
const SCHED_OTHER = 0;
const SCHED_BATCH = 3;
/** A third of the share that others have. */
const COMPUTE_NICE = 5;

let c: Deno.DynamicLibrary<typeof symbols>["symbols"] | null | undefined;

/**
 * Whether this thread, when it is woken, takes the core from another that computes, as threads do, or
 * waits until one is free or its turn has come. Does nothing where the system does not have it.
 */
export function setPreempting(isPreempting: boolean): void {
  const policy = isPreempting ? SCHED_OTHER : SCHED_BATCH;
  functions()?.sched_setscheduler(0, policy, new Uint8Array(4)); // struct sched_param: priority 0
}

/**
 * For a thread that computes, and those that it starts: where others want its core as well, it takes a
 * smaller share. Those that answer want it often and briefly, and would wait until its turn is over,
 * 4 ms on many systems. For good: to take it back needs privileges. Does nothing but on Linux.
 */
export function yieldToOthers(): void {
  functions()?.nice(COMPUTE_NICE); // on Linux of the thread, not of the process
}

function functions(): typeof c {
  if (c === undefined) c = Deno.build.os === "linux" ? openLibC(symbols) : null;
  return c;
}

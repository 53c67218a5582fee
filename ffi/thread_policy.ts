/** Sets how the system schedules the calling thread, through FFI. Linux only. */
import { openLibC } from "./libc.ts";

const symbols = {
  sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  nice: { parameters: ["i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// sched.h of Linux; a thread may switch between the two at any time.
const SCHED_OTHER = 0;
const SCHED_BATCH = 3;
/** On a contended core, a thread gets about a third of another thread's share. */
const COMPUTE_NICE = 5;

let c: Deno.DynamicLibrary<typeof symbols>["symbols"] | null | undefined;

/**
 * Sets whether this thread, when woken, preempts a thread that computes, which is the default, or
 * waits for a free core or its turn. Does nothing on systems other than Linux.
 */
export function setPreempting(isPreempting: boolean): void {
  const policy = isPreempting ? SCHED_OTHER : SCHED_BATCH;
  functions()?.sched_setscheduler(0, policy, new Uint8Array(4)); // struct sched_param: priority 0
}

/**
 * Lowers the priority of this thread, which computes, and of threads that it starts later: on a
 * contended core they take a smaller share. Threads that answer requests run often and briefly; without
 * this they would wait for the end of the computing thread's turn, 4 ms on many systems. Cannot be
 * undone without privileges. Does nothing on systems other than Linux.
 */
export function yieldToOthers(): void {
  functions()?.nice(COMPUTE_NICE); // on Linux of the thread, not of the process
}

function functions(): typeof c {
  if (c === undefined) c = Deno.build.os === "linux" ? openLibC(symbols) : null;
  return c;
}

/**
 * What the instances of a host leave each other. An instance's pools become resident as they are used, so
 * until then the system counts their memory as available to others. Each instance therefore claims what it
 * will come to use: an open file in memory whose name is the number of bytes. The others find it in /proc,
 * and it ends with the process, however that ends.
 */
import { closeDescriptor, openNamedDescriptor } from "../../../ffi/libc.ts";

const NAME = "llumnix-memory-claim";
const CLAIM = new RegExp(`^/memfd:${NAME}-(\\d+)\\b`);
/** Descriptors of a process that are looked at: a claim is opened early. */
const MAX_DESCRIPTORS = 512;

let claim: number | null = null;

/** Says how much memory this process will come to use. The next claim takes the place of this one. */
export function claimMemory(byteLength: number): void {
  if (claim !== null) closeDescriptor(claim);
  claim = openNamedDescriptor(`${NAME}-${Math.ceil(byteLength)}`);
}

/** Memory that other instances have claimed and do not use yet. */
export interface UnusedClaims {
  /** Of the host. */
  readonly hostBytes: number;
  /** Of this process's control group. */
  readonly groupBytes: number;
}

/** Reads the claims of this user's other instances, as far as this process sees their processes. */
export function unusedClaims(): UnusedClaims {
  let hostBytes = 0, groupBytes = 0;
  const ownGroup = readText("/proc/self/cgroup");
  for (const pid of processes()) {
    const unusedBytes = claimOf(pid) - residentBytes(pid);
    if (unusedBytes <= 0) continue;
    hostBytes += unusedBytes;
    if (readText(`/proc/${pid}/cgroup`) === ownGroup) groupBytes += unusedBytes;
  }
  return { hostBytes, groupBytes };
}

/**
 * Processes of this user with the word "instance" on their command line, but for this one. Root sees
 * the claims of all users, and must not believe those of others.
 */
function processes(): string[] {
  const uid = Deno.uid();
  const entries = list("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== Deno.pid);
  return entries.filter((pid) =>
    ownerOf(`/proc/${pid}`) === uid && readText(`/proc/${pid}/cmdline`)?.includes("\0instance\0")
  );
}

/** Bytes that a process has claimed; 0 for none. */
function claimOf(pid: string): number {
  for (const fd of list(`/proc/${pid}/fd`).slice(0, MAX_DESCRIPTORS)) {
    const found = CLAIM.exec(linkAt(`/proc/${pid}/fd/${fd}`));
    if (found !== null) return Number(found[1]);
  }
  return 0;
}

function residentBytes(pid: string): number {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(readText(`/proc/${pid}/status`) ?? "")?.[1] ?? 0) *
    1024;
}

// A process may end, or belong to another user, while it is looked at.

function list(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].map(({ name }) => name);
  } catch {
    return [];
  }
}

function ownerOf(path: string): number | null {
  try {
    return Deno.statSync(path).uid;
  } catch {
    return null;
  }
}

function linkAt(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return "";
  }
}

function readText(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return null;
  }
}

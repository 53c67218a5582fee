/**
 * What the instances of a host leave each other. An instance's pools become resident as they are used, so
 * until then the system counts their memory as available to others. Each instance therefore claims what it
 * will come to use: an open file in memory whose name is the number of bytes. The others find it in /proc,
 * and it ends with the process, however that ends.
 */
import { closeDescriptor, openNamedDescriptor } from "../../../ffi/libc.ts";
import { realClock, sleep } from "../../core/clock.ts";
import { UnavailableError } from "../../core/errors.ts";

const NAME = "llumnix-memory-claim";
/** A claim that is withdrawn if another instance claims memory at the same time. */
const ATTEMPT_NAME = "llumnix-memory-attempt";
const CLAIM = new RegExp(`^/memfd:(${NAME}|${ATTEMPT_NAME})-(\\d+)\\b`);
/** Descriptors of a process that are looked at: a claim is opened early. */
const MAX_DESCRIPTORS = 512;

/** Attempts to claim memory while others do. */
const MAX_ATTEMPTS = 50;
/** Longest pause after an attempt, in which others make theirs. */
const MAX_PAUSE_MS = 200;

let claim: number | null = null;

/** Memory that other instances have claimed and do not use yet. */
export interface UnusedClaims {
  /** Of the host. */
  readonly hostBytes: number;
  /** Of this process's control group. */
  readonly groupBytes: number;
}

/**
 * Claims the memory that this process will come to use, which depends on what others have claimed. The claim
 * takes the place of an earlier one. Of processes that plan at once, none keeps a claim that another one did
 * not know of: each claims, looks again, and withdraws and plans anew if it finds a claim that is new.
 * @param plan gives the bytes to claim and anything else; called again after each withdrawal
 * @returns the last plan
 * @throws {UnavailableError} others claimed memory in each of many attempts
 * @throws what the last plan throws
 */
export async function claimMemory<P extends { readonly claimBytes: number }>(
  plan: (claims: UnusedClaims) => P,
): Promise<P> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    withdrawClaim();
    const before = readClaims();
    try {
      const planned = plan(unusedOf(before));
      claim = openNamedDescriptor(`${ATTEMPT_NAME}-${Math.ceil(planned.claimBytes)}`);
      if (!readClaims().some((one) => !before.some((other) => isSame(one, other)))) {
        settle(planned.claimBytes);
        return planned;
      }
    } catch (error) {
      // An attempt of another process may be all that is in the way, and may be withdrawn.
      if (!before.some(({ isAttempt }) => isAttempt)) throw error;
    }
    withdrawClaim();
    await sleep(realClock, Math.random() * MAX_PAUSE_MS);
  }
  throw new UnavailableError(
    `other instances claimed memory at the same time, in each of ${MAX_ATTEMPTS} attempts of this ` +
      "one; start it again once they have started",
  );
}

/** The attempt stays until the claim is there: another process sees one of both at any time. */
function settle(byteLength: number): void {
  const attempt = claim;
  claim = openNamedDescriptor(`${NAME}-${Math.ceil(byteLength)}`);
  if (attempt !== null) closeDescriptor(attempt);
}

/** Gives up the claim of this process. */
export function withdrawClaim(): void {
  if (claim !== null) closeDescriptor(claim);
  claim = null;
}

/** The claim of another process. */
interface Claim {
  readonly pid: string;
  readonly byteLength: number;
  readonly isAttempt: boolean;
}

function isSame(one: Claim, other: Claim): boolean {
  return one.pid === other.pid && one.byteLength === other.byteLength;
}

/** Reads the claims of this user's other instances, as far as this process sees their processes. */
export function unusedClaims(): UnusedClaims {
  return unusedOf(readClaims());
}

function unusedOf(claims: readonly Claim[]): UnusedClaims {
  let hostBytes = 0, groupBytes = 0;
  const ownGroup = readText("/proc/self/cgroup");
  for (const { pid, byteLength } of claims) {
    const unusedBytes = byteLength - residentBytes(pid);
    if (unusedBytes <= 0) continue;
    hostBytes += unusedBytes;
    if (readText(`/proc/${pid}/cgroup`) === ownGroup) groupBytes += unusedBytes;
  }
  return { hostBytes, groupBytes };
}

function readClaims(): Claim[] {
  return processes().flatMap((pid) => claimOf(pid) ?? []);
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

/** What a process has claimed; null: nothing. */
function claimOf(pid: string): Claim | null {
  for (const fd of list(`/proc/${pid}/fd`).slice(0, MAX_DESCRIPTORS)) {
    const found = CLAIM.exec(linkAt(`/proc/${pid}/fd/${fd}`));
    if (found === null) continue;
    return { pid, byteLength: Number(found[2]), isAttempt: found[1] === ATTEMPT_NAME };
  }
  return null;
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

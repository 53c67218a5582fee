/**
 * What earlier versions of the self-extracting executable have unpacked, a program and perhaps a runtime
 * each: 150 MB for a version of Deno. See `scripts/bundle/header.sh`.
 */
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { removeIfPresent } from "../core/files.ts";
import { isUnpacked } from "../core/self_command.ts";

/** Names of programs, of runtimes, and of directories that an interrupted first run left. */
const NAME = /^(?:llumnix-\d.*-[0-9a-f]{16}(?:\.js)?|deno-\d.*-[0-9a-f]{16}|unpack\.\w{6})$/;
/** Later than this, a first run that goes on at this moment is over. */
const MIN_AGE_MS = 24 * 3600 * 1000;
/** How often a process makes what it runs new again: several times before it would be old. */
const TOUCH_MS = 6 * 3600 * 1000;

/**
 * Keeps what this process runs from looking old, for as long as the process runs. Home directories are
 * often shared by hosts and containers, and a process there does not see this one before it removes.
 */
export function keepProgram(): void {
  if (!isUnpacked()) return;
  const touch = () => touchProgram(Deno.execPath(), fileURLToPath(Deno.mainModule));
  touch();
  Deno.unrefTimer(setInterval(touch, TOUCH_MS));
}

/**
 * Makes a runtime, and the program that lies beside it, as new as if they had been unpacked now.
 * @param main a file of the program
 */
export function touchProgram(runtime: string, main: string): void {
  const directory = dirname(runtime);
  const [program] = relative(directory, main).split("/");
  const now = new Date();
  for (const path of [runtime, join(directory, program)]) {
    try {
      Deno.utimeSync(path, now, now);
    } catch {
      // The file system is read-only: nobody can remove it either.
    }
  }
}

/**
 * Removes what was unpacked more than a day ago and what no process runs, or may load a part of. Another
 * version that is started again unpacks itself again.
 * @param directory default: where this program was unpacked, if it was
 * @param commandLines of all processes that may use the directory
 * @returns the names that were removed
 */
export function removeOldPrograms(
  directory: string | null = unpackedIn(),
  commandLines: readonly string[] = runningCommandLines(),
  nowMs = Date.now(),
): string[] {
  if (directory === null) return [];
  const removed: string[] = [];
  for (const { name } of [...Deno.readDirSync(directory)]) {
    const path = join(directory, name);
    if (!NAME.test(name) || commandLines.some((line) => line.includes(path))) continue;
    try {
      const { mtime } = Deno.lstatSync(path);
      if (mtime === null || nowMs - mtime.getTime() < MIN_AGE_MS) continue;
      removeIfPresent(path);
      removed.push(name);
    } catch {
      // Another process removes it at the same time, or the file system is read-only now.
    }
  }
  return removed;
}

function unpackedIn(): string | null {
  return isUnpacked() ? dirname(Deno.execPath()) : null;
}

function runningCommandLines(): string[] {
  return [...Deno.readDirSync("/proc")].flatMap(({ name }) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return [Deno.readTextFileSync(`/proc/${name}/cmdline`)];
    } catch {
      return []; // it has ended
    }
  });
}

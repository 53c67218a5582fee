/**
 * How this program starts itself again. Three forms of it exist: the source under `deno run`, the
 * executable made by `deno compile`, and the self-extracting one.
 */

let executable: string | null = null;
let given: readonly string[] | null = null;

/** A worker cannot tell which program it belongs to: its main thread says so. */
export function setSelfCommand(command: readonly string[]): void {
  given = command;
}

/** The self-extracting executable says which file it is. */
export function setExecutable(path: string): void {
  executable = path;
}

/** Whether this is the self-extracting executable, of which the runtime and the program are elsewhere. */
export function isUnpacked(): boolean {
  return executable !== null;
}

/** What Linux adds to the path of an executable whose file was replaced or removed (proc(5), exe). */
const DELETED = " (deleted)";

/**
 * The words that start this program, to which its arguments are added. If its file was replaced meanwhile,
 * they start what is there now.
 */
export function selfCommand(): string[] {
  if (given !== null) return [...given];
  if (Deno.build.standalone) return [withoutMark(Deno.execPath())];
  if (executable !== null) return [executable];
  return [Deno.execPath(), "run", "-A", Deno.mainModule];
}

/** The path of an executable, also after its file was replaced. */
export function withoutMark(path: string): string {
  return path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path;
}

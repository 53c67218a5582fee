/**
 * How this program starts itself again. Three forms of it exist: the source under `deno run`, the
 * executable made by `deno compile`, and the self-extracting one.
 */

let executable: string | null = null;

/** The self-extracting executable says which file it is. */
export function setExecutable(path: string): void {
  executable = path;
}

/** The words that start this program, to which its arguments are added. */
export function selfCommand(): string[] {
  if (Deno.build.standalone) return [Deno.execPath()];
  if (executable !== null) return [executable];
  return [Deno.execPath(), "run", "-A", Deno.mainModule];
}

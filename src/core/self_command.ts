/**
 * How this program starts itself again. Three forms of it exist: the source under `deno run`, the
 * executable made by `deno compile`, and the self-extracting one (whose header sets LLUMNIX_SELF).
 */
export function selfCommand(): string[] {
  if (Deno.build.standalone) return [Deno.execPath()];
  const executable = Deno.env.get("LLUMNIX_SELF");
  if (executable) return [executable];
  return [Deno.execPath(), "run", "-A", Deno.mainModule];
}

/** Programs of tests of an upgrade, as shell scripts. */

/** Writes an executable script, which is removed with its directory. */
export function writeProgram(directory: string, body: string): string {
  const path = `${directory}/program-${crypto.randomUUID()}`;
  Deno.writeTextFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  return path;
}

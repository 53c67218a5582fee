/** Reports that scripts write and that are committed. */

/** The commit of the tree, with "-dirty" if files differ from it. */
export async function describeCommit(): Promise<string> {
  const args = ["describe", "--always", "--dirty"];
  const cwd = new URL("..", import.meta.url);
  const { stdout } = await new Deno.Command("git", { args, cwd }).output();
  return new TextDecoder().decode(stdout).trim();
}

/** Writes a Markdown file as `deno fmt` formats it. */
export async function writeReport(file: string | URL, text: string): Promise<void> {
  const path = file instanceof URL ? decodeURIComponent(file.pathname) : file;
  await Deno.writeTextFile(path, text);
  await new Deno.Command(Deno.execPath(), { args: ["fmt", "--quiet", path] }).output();
}

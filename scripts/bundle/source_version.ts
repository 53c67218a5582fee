/** What `--version` says of the source that an executable was built from. */
import type { Build } from "../../src/core/version.ts";

/** What an executable is made from; changes elsewhere do not make it another one. */
const paths = ["src", "ffi", "scripts/build.ts", "scripts/bundle", "scripts/std", "deno.json"];

/**
 * The commit, and the day of the build. SOURCE_DATE_EPOCH (seconds, reproducible-builds.org) sets the day.
 * @returns a null commit where there is no git, or no repository
 */
export async function sourceVersion(root: string): Promise<Build> {
  const hash = await git(root, "rev-parse", "--short=9", "HEAD");
  const changes = hash === null ? null : await git(root, "status", "--porcelain", "--", ...paths);
  const epoch = Number(Deno.env.get("SOURCE_DATE_EPOCH") || NaN);
  const day = new Date(Number.isFinite(epoch) ? epoch * 1000 : Date.now());
  return {
    commit: hash === null ? null : hash + (changes ? "+" : ""),
    date: day.toISOString().slice(0, 10),
  };
}

/** The output of a command; null if it fails. */
async function git(root: string, ...args: string[]): Promise<string | null> {
  try {
    const command = new Deno.Command("git", { args, cwd: root, stdin: "null", stderr: "null" });
    const { success, stdout } = await command.output();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

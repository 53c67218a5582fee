import config from "../../deno.json" with { type: "json" };

/** Version of this program. */
export const version: string = config.version;

/** From what an executable was built, and when. */
export interface Build {
  /** Short hash of the commit, with "+" if sources were changed since; null: not known. */
  readonly commit: string | null;
  /** "2026-11-29" */
  readonly date: string;
}

let build: Build | null = null;

/** The executable says what it was built from; the source under `deno run` never does. */
export function setBuild(given: Build | null): void {
  build = given;
}

/** `0.1.0 (commit 1a2b3c4, built 2026-11-29)`, or `0.1.0 (from source)`. */
export function fullVersion(): string {
  if (build === null) return `${version} (from source)`;
  const { commit, date } = build;
  return `${version} (${commit === null ? "" : `commit ${commit}, `}built ${date})`;
}

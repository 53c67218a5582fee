/** The summary of the long sets, `test/long.md`: a row for the last run of each set. */

export interface SetOutcome {
  readonly name: string;
  readonly isWell: boolean;
  readonly tookS: number;
  /** Its last line, or the counts of its tests. */
  readonly said: string;
  /** Of what it ran: date, commit, and the like. */
  readonly on: string;
}

const HEAD = `# The last run of each set of \`deno task test-long\`

Written by \`scripts/test_long.ts\`: a run replaces the rows of its sets.

| set | outcome | seconds | its last words | on |
| --- | ------- | ------- | -------------- | -- |
`;

/**
 * The summary with the rows of `outcomes` in place of older ones.
 * @param names of all sets, in their order; rows of other sets are left out
 * @param before the summary as it was, "" if there is none
 */
export function summaryWith(
  before: string,
  names: readonly string[],
  outcomes: readonly SetOutcome[],
): string {
  const rows = new Map<string, string>();
  for (const line of before.split("\n")) {
    const name = /^\| ([a-z0-9-]+) +\| (?:passed|FAILED) /.exec(line)?.[1];
    if (name !== undefined) rows.set(name, line);
  }
  for (const { name, isWell, tookS, said, on } of outcomes) {
    const cells = [name, isWell ? "passed" : "FAILED", String(tookS), said, on];
    rows.set(name, `| ${cells.map((text) => text.replaceAll("|", "/")).join(" | ")} |`);
  }
  return HEAD + names.flatMap((name) => rows.has(name) ? [`${rows.get(name)}\n`] : []).join("");
}

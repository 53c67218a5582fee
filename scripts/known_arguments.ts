/** For scripts that take a few flags, or nothing: a word that is none of them would be ignored in silence. */

/**
 * Ends the program with exit code 2 if its command line has another word.
 * @param known the flags, such as `--force`
 */
export function refuseUnknownArguments(
  known: readonly string[] = [],
  args: readonly string[] = Deno.args,
): void {
  const unknown = args.find((word) => !known.includes(word));
  if (unknown === undefined) return;
  const expected = known.length === 0 ? "no arguments" : known.join(" or ");
  console.error(`unknown argument ${unknown}: expected ${expected}`);
  Deno.exit(2);
}

/** Whether a terminal may be sent escapes, which move its cursor and colour its text. */

/**
 * False where the stream is no terminal, with `NO_COLOR` (https://no-color.org) or with `TERM=dumb`.
 * Progress is shown by whole lines then.
 */
export function takesEscapes(
  stream: { isTerminal(): boolean } = Deno.stderr,
  env: Pick<Deno.Env, "get"> = Deno.env,
): boolean {
  return stream.isTerminal() && !env.get("NO_COLOR") && env.get("TERM") !== "dumb";
}

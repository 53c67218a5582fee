/**
 * Tests that take too long for every run of the suite. `deno task test-long` runs them; elsewhere they are
 * ignored, and their names say so.
 */

/** Whether this run has time for them. */
export const isLongRun = Deno.env.get("LLUMNIX_TEST_LONG") === "1";

export function longTest(definition: Deno.TestDefinition): void {
  const { name, ignore = false } = definition;
  Deno.test({
    ...definition,
    name: isLongRun ? name : `${name} (long: deno task test-long)`,
    ignore: ignore || !isLongRun,
  });
}

import assert from "node:assert/strict";
import { takesEscapes } from "../../src/core/terminal.ts";

Deno.test("escapes are for terminals that want them", () => {
  const asked = (isTerminal: boolean, env: Readonly<Record<string, string>>) =>
    takesEscapes({ isTerminal: () => isTerminal }, { get: (name) => env[name] });
  assert.equal(asked(true, { TERM: "xterm" }), true);
  assert.equal(asked(true, { NO_COLOR: "" }), true, "an empty NO_COLOR is none");
  assert.equal(asked(true, { NO_COLOR: "1" }), false);
  assert.equal(asked(true, { TERM: "dumb" }), false);
  assert.equal(asked(false, {}), false);
});

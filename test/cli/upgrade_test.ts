/** What `llumnix upgrade` refuses by itself; see test/e2e/upgrade_test.ts for the rest. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { upgrade } from "../../src/cli/upgrade/command.ts";

Deno.test("upgrade: without a process that serves, and with files that cannot be run", async () => {
  const directory = Deno.makeTempDirSync();
  const before = Deno.env.get("XDG_RUNTIME_DIR");
  Deno.env.set("XDG_RUNTIME_DIR", directory);
  try {
    const text = join(directory, "text");
    Deno.writeTextFileSync(text, "", { mode: 0o644 });
    const cases: [argv: string[], kind: string, message: RegExp][] = [
      [[], "unavailable", /^no process of this user serves: .* in .*systemctl reload/s],
      [["--list"], "unavailable", /^no process of this user serves/],
      [["--pid", "1"], "unavailable", /^process 1 does not serve/],
      [["--pid", "0"], "usage", /--pid/],
      [["--binary", text], "usage", /may not be executed \(chmod \+x /],
      [["--binary", directory], "usage", /is no file$/],
      [["--binary", join(directory, "none")], "usage", /none: no such file or directory$/],
      [["now"], "usage", /unexpected argument: now/],
    ];
    for (const [argv, kind, message] of cases) {
      await assert.rejects(upgrade.run(argv), { kind, message }, argv.join(" "));
    }
    // A process that was killed has left its socket.
    Deno.mkdirSync(join(directory, "llumnix"), { mode: 0o700 });
    Deno.writeTextFileSync(join(directory, "llumnix/control-1.sock"), "");
    await assert.rejects(upgrade.run([]), { kind: "unavailable", message: /^no process of this/ });
  } finally {
    if (before === undefined) Deno.env.delete("XDG_RUNTIME_DIR");
    else Deno.env.set("XDG_RUNTIME_DIR", before);
    Deno.removeSync(directory, { recursive: true });
  }
});

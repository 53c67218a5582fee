import assert from "node:assert/strict";
import { isStream } from "../../src/core/journal.ts";

Deno.test("the journal: only if JOURNAL_STREAM names the very stream", async () => {
  const path = await Deno.makeTempFile();
  try {
    const { dev, ino } = await Deno.stat(path);
    assert.ok(isStream(`${dev}:${ino}`, path));
    for (const other of [undefined, "", `${dev}:${ino! + 1}`, `${dev}`, "x:y"]) {
      assert.ok(!isStream(other, path), `${other}`);
    }
    assert.ok(!isStream(`${dev}:${ino}`, `${path}-not-there`));
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("the journal: lines have their priority in the place of time and level", async () => {
  const path = await Deno.makeTempFile();
  try {
    using stderr = await Deno.open(path, { write: true });
    const { dev, ino } = await stderr.stat();
    const source = `data:application/typescript,${
      encodeURIComponent(`
      import { logger, setupLogging } from "${import.meta.resolve("../../src/core/log.ts")}";
      setupLogging({ level: "debug", filename: null, role: "server" });
      const log = logger("http");
      log.debug("d"); log.info("i", { n: 1 }); log.warn("w"); log.error("e");
    `)
    }`;
    // A shell, because Deno cannot give a child a file as its stderr.
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const { code } = await new Deno.Command("sh", {
      args: ["-c", `"$0" run -A --config "$1" "$2" 2>"$3"`, Deno.execPath(), config, source, path],
      env: { JOURNAL_STREAM: `${dev}:${ino}` },
    }).output();
    assert.equal(code, 0, await Deno.readTextFile(path));
    assert.deepEqual((await Deno.readTextFile(path)).trim().split("\n"), [
      "<7>server/http: d",
      "<6>server/http: i n=1",
      "<4>server/http: w",
      "<3>server/http: e",
    ]);
  } finally {
    await Deno.remove(path);
  }
});

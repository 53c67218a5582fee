import assert from "node:assert/strict";

Deno.test("fuzz: the summary counts seeds that failed apart from requests that did", async () => {
  const script = new URL("../../scripts/fuzz.ts", import.meta.url).pathname;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script, "--seeds", "1"],
    stderr: "inherit",
  }).output();
  assert.equal(code, 0);
  const [seeds, counters] = new TextDecoder().decode(stdout).split("\n");
  assert.match(seeds, /^1 seed in [\d.]+ s, 0 failed$/);
  const { requests, events } = JSON.parse(counters);
  assert.deepEqual(Object.keys(requests), ["finished", "failed", "aborted"]);
  assert.ok(requests.finished > 0 && events > 0);
});

/** `llumnix bench` as a user runs it, with a service of its own. */
import assert from "node:assert/strict";
import { Program } from "./harness.ts";

const serve = "--device sim --model llama-7b --speedup 20 --initial-instances 2 --enable-migration";
const load = ["--random-input-len", "64", "--random-output-len", "40"];

Deno.test("a service is started, measured, watched and stopped", async () => {
  const files = ["--html", "r.html", "--save-result", "--result-filename", "r.json"];
  await using program = new Program(
    ["bench", "--serve", serve, "--num-prompts", "12", "--request-rate", "20", ...load, ...files],
  );
  const { code } = await program.end();
  const said = `${program.stdout}\n${program.stderr}`;
  assert.equal(code, 0, said);
  assert.match(program.stdout, /Successful requests: +12\n/);
  assert.match(program.stdout, /Total generated tokens: +480\n/);
  const json = JSON.parse(await Deno.readTextFile(`${program.directory}/r.json`));
  assert.equal(typeof json.llumnix.migrations_seen, "number", JSON.stringify(json));
  const page = await Deno.readTextFile(`${program.directory}/r.html`);
  assert.match(page, /Instances and migrations/);
});

Deno.test("Ctrl-C reports what was measured so far", async () => {
  await using program = new Program(
    ["bench", "--serve", serve, "--num-prompts", "5000", "--request-rate", "20", ...load],
  );
  await program.waitUntil("it sent requests", () => /5000 requests to/.test(program.stderr));
  Deno.kill(program.pid, "SIGINT");
  const { code } = await program.end();
  assert.equal(code, 130, program.stderr);
  assert.match(program.stdout, /Serving Benchmark Result/);
  assert.match(program.stdout, /Stopped after \d+ of 5000 requests/);
});

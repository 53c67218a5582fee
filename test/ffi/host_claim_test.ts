import assert from "node:assert/strict";
import { claimName, heldNames } from "../../ffi/host_claim.ts";

const linux = { ignore: Deno.build.os !== "linux" };
const source = new URL("../../ffi/host_claim.ts", import.meta.url).href;

Deno.test("a name is held once, until it is released", linux, () => {
  const name = `llumnix-test-${crypto.randomUUID()}`;
  const first = claimName(name);
  assert.notEqual(first, null);
  assert.equal(claimName(name), null);
  const other = claimName(`${name}-2`);
  assert.notEqual(other, null);
  first!.release();
  first!.release(); // a second time frees nothing of others
  const again = claimName(name);
  assert.notEqual(again, null);
  again!.release();
  other!.release();
});

Deno.test("a killed process holds no name", linux, async () => {
  const name = `llumnix-test-${crypto.randomUUID()}`;
  const program = `import { claimName, heldNames } from "${source}";
    console.log(claimName("${name}") !== null); setInterval(() => {}, 1000);`;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-config",
      `data:application/typescript,${encodeURIComponent(program)}`,
    ],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  assert.equal(new TextDecoder().decode(value), "true\n");
  assert.equal(claimName(name), null);
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  const claim = claimName(name);
  assert.notEqual(claim, null);
  claim!.release();
});

Deno.test("names that are held are listed with their process", linux, () => {
  const prefix = `llumnix-test-${crypto.randomUUID()}`;
  const claims = ["", "-1"].map((suffix) => claimName(prefix + suffix)!);
  const held = () => heldNames(prefix).sort((a, b) => a.name < b.name ? -1 : 1);
  const { pid } = Deno;
  assert.deepEqual(held(), [{ name: prefix, pid }, { name: `${prefix}-1`, pid }]);
  claims[0].release();
  assert.deepEqual(held(), [{ name: `${prefix}-1`, pid }]);
  claims[1].release();
  assert.deepEqual(held(), []);
});

Deno.test("names of impossible lengths are refused", () => {
  assert.throws(() => claimName(""), RangeError);
  assert.throws(() => claimName("x".repeat(108)), RangeError);
});

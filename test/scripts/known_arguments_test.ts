import assert from "node:assert/strict";
import { join } from "node:path";

const root = join(import.meta.dirname!, "../..");

Deno.test("scripts refuse words that they do not know", async () => {
  const scripts = ["build", "build_kernels", "build_cuda_kernels", "build_software_device"];
  for (const name of scripts) {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "-A", join(root, `scripts/${name}.ts`), "--al"],
    }).output();
    const text = new TextDecoder().decode(stderr);
    assert.equal(code, 2, `${name}: ${text}`);
    assert.match(text, /unknown argument --al: expected (no arguments|--)/);
  }
});

Deno.test("scripts that run what matches a word refuse one that nothing matches", async () => {
  for (const [name, message] of [["hosts", /no scenario matches/], ["nccl_mutants", /no rule/]]) {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "-A", join(root, `scripts/${name}.ts`), "nothing like that"],
    }).output();
    const text = new TextDecoder().decode(stderr);
    assert.equal(code, 2, `${name}: ${text}`);
    assert.match(text, message as RegExp);
  }
});

/** The examples of the package over the software device. */
import assert from "node:assert/strict";
import { buildSoftwareDevice } from "../../scripts/build_software_device.ts";

const examples = new URL("../../ffi/examples/", import.meta.url);
const built = await buildSoftwareDevice();
const reason = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";

async function run(name: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", decodeURIComponent(new URL(name, examples).pathname)],
    env: {
      LLUMNIX_CUDA_LIBRARIES: "missing" in built ? "" : built.directory,
      LLUMNIX_SOFTWARE_DEVICE: "devices=2,memory=64M",
    },
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

function example(name: string, check: (output: string) => void): void {
  Deno.test({
    name: `ffi/examples/${name}${reason}`,
    ignore: "missing" in built,
    fn: async () => check(await run(name)),
  });
}

example("copy.ts", (output) => {
  assert.match(output, /^libcudart: 4096 bytes on the device, shared as [0-9a-f]{128}\n$/);
});

example("ipc.ts", (output) => {
  assert.equal(output, "the other process reads 1048576 bytes of value 42\n");
});

example("survey.ts", (output) => {
  const device = "(software device, no GPU)";
  for (const line of [/^libcuda: 13\.0 at \//m, /^libcudart: 13\.0 at \//m, /^libnccl: 2\./m]) {
    assert.match(output, line);
  }
  assert.ok(output.includes(device), output);
  assert.match(output, /^device 0: .*, sm_\d+, .* of 0\.1 GiB free, peers: 1$/m);
  assert.match(output, /^device 1: .*, peers: 0$/m);
});

Deno.test("the example of the README is the one that runs", async () => {
  const readme = await Deno.readTextFile(new URL("../README.md", examples));
  const example = await Deno.readTextFile(new URL("copy.ts", examples));
  assert.ok(readme.includes("```ts\n" + example + "```"));
});

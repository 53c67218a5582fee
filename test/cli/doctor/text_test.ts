import assert from "node:assert/strict";
import { examine } from "../../../src/cli/doctor/examine.ts";
import type { Host } from "../../../src/cli/doctor/host.ts";
import { reportText } from "../../../src/cli/doctor/text.ts";
import { fakeCuda, fakeHost, model, path, silently } from "./fake_host.ts";

const textOf = async (parts: Partial<Host> = {}) =>
  reportText(await examine(fakeHost(parts), model, silently));

Deno.test("a missing library is one line with the first place that was tried", async () => {
  const lines = (await textOf()).split("\n");
  assert.ok(lines.includes("  libnccl     no: Tried: libnccl.so.1: not there and 1 more (--json)"));
});

Deno.test("the report says that the CPU works, and what a token costs", async () => {
  const text = await textOf();
  assert.ok(text.endsWith("--device cpu works here."), text);
  assert.match(text, /A token of test-model \(bfloat16\) has 1000 bytes of KV cache\./);
  assert.match(text, /^ {2}memcpy +10 +8$/m);
  assert.match(text, /^ {2}memcpy +8000000$/m);
});

Deno.test("problems end the report", async () => {
  const text = await textOf({ kernelSets: () => [] });
  assert.match(text, /\nProblems: --device cpu does not work here\n {2}no set of CPU kernels/);
});

Deno.test("a GPU has no label, and every line of the software device has one", async () => {
  assert.doesNotMatch(await textOf({ openCuda: () => fakeCuda(1) }), /software device/);
  const text = await textOf({
    openCuda: () => fakeCuda(2, { softwareDevice: true }),
    measureDevice: () =>
      Promise.resolve([{ ...path("inside device 0", 7, 7), softwareDevice: true }]),
  });
  const ofDevice = text.split("\n").filter((line) => /device (\d|pools: works)/.test(line));
  assert.ok(ofDevice.length >= 3, text);
  for (const line of ofDevice) assert.match(line, /software device, no GPU/);
});

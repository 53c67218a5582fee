import assert from "node:assert/strict";
import { ArgumentIndex } from "../../../src/cli/arguments/index.ts";
import { checkStatus } from "../../../src/cli/arguments/status.ts";
import { serveGroups } from "../../../src/cli/arguments/tables.ts";
import { readSettings } from "../../../src/cli/settings.ts";

const index = new ArgumentIndex(serveGroups);

async function check(...argv: string[]) {
  return checkStatus(index, await readSettings(argv, index));
}

function refuses(argv: string[], message: string): void {
  Deno.test(`refused at start: ${argv.join(" ")}`, () =>
    assert.rejects(check(...argv), { name: "UsageError", message }));
}

refuses(
  ["--enable-lora"],
  "--enable-lora is not supported: Llumnix does not support multi-LoRA serving",
);
refuses(
  ["--max-loras", "2"],
  "--max-loras 2 is not supported: Llumnix does not support multi-LoRA serving",
);
refuses(
  ["--device", "neuron"],
  "--device neuron is not supported: the devices are cuda and cpu",
);
refuses(
  ["--load-format=pt"],
  "--load-format pt is not supported: weights are read from safetensors files only",
);
refuses(
  ["-pp", "2"],
  "--pipeline-parallel-size 2 is not available yet; leave it at its default (1)",
);
refuses(["-q", "awq"], "--quantization awq is not available yet; leave it at its default (unset)");

Deno.test("every argument may be given at its default", async () => {
  for (const { name, argument } of index.entries) {
    if (argument.default === null) continue;
    if (argument.status.kind === "works" && argument.laterChoices.length === 0) continue;
    const written = [`--${name}=${argument.default}`];
    // A notice says that the migration backends' arguments have no effect without migration.
    const isOfBackend = name.startsWith("migration-backend-");
    if (name.startsWith("migration-backend")) written.push("--enable-migration");
    assert.equal((await check(...written)).length, isOfBackend ? 1 : 0, name);
  }
});

Deno.test("what works starts", async () => {
  assert.deepEqual(await check(), []);
  const works = "--device null --dispatch-policy queue --load-format dummy --initial-instances 2";
  assert.deepEqual(await check(...works.split(" "), "--served-model-name", "a", "b"), []);
});

Deno.test("an argument without effect gives one warning", async () => {
  assert.deepEqual(await check("--tokenizer-mode", "slow", "--trust-remote-code"), [
    {
      severity: "warning",
      message: "--tokenizer-mode slow has no effect: there is one tokenizer implementation",
    },
    {
      severity: "warning",
      message: "--trust-remote-code has no effect: code that comes with a model is never run",
    },
  ]);
});

Deno.test("arguments without effect for the same reason share a warning", async () => {
  const argv = "--launch-ray-cluster --ray-cluster-port 6379 --engine-use-ray --worker-use-ray";
  const [{ message }, ...others] = await check(...argv.split(" "));
  assert.deepEqual(others, []);
  assert.equal(
    message,
    "--worker-use-ray, --engine-use-ray, --launch-ray-cluster and --ray-cluster-port 6379 have no " +
      "effect: there is no Ray here; serve starts its instances as processes",
  );
});

Deno.test("a value of a file is named as the file has it", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "ENGINE: {QUANTIZATION: gptq}");
    await assert.rejects(check("--config-file", path), {
      message: `ENGINE.QUANTIZATION: gptq in ${path} is not available yet; leave it at its ` +
        "default (unset)",
    });
  } finally {
    await Deno.remove(path);
  }
});

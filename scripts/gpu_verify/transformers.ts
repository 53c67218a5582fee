/**
 * Logits and greedy tokens of random models of every family, which are made here, against what Hugging Face
 * transformers computes of them on this host's GPU.
 */
import { expect, found } from "./device.ts";
import { missingTransformers, runPython } from "./python.ts";

/** Added to the seeds of the committed references, so that these models are others. */
const SEED_OFFSET = 100;

const missing = await missingTransformers();
if (missing !== null) found("transformers", `not measured: ${missing}`);
else await compare();

async function compare(): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const script = new URL("../make_reference.py", import.meta.url).pathname;
    const made = await runPython([
      ...[script, "--out", directory, "--seed-offset", `${SEED_OFFSET}`],
    ]);
    expect(made.success, `make_reference.py: ${made.complaint}`);
    const models = [...Deno.readDirSync(directory)].map(({ name }) => name.replace(".json", ""));
    const tests = ["--filter", "on this host's device: transformers"];
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", ...tests, "test/executor/cuda/host_device_test.ts"],
      env: { LLUMNIX_REFERENCES: directory },
    }).output();
    const said = new TextDecoder().decode(success ? stdout : Uint8Array.of(...stdout, ...stderr));
    expect(success, said.slice(-3000));
    const [, passed = "0", ignored = "0"] =
      /(\d+) passed[^|]*\| \d+ failed[^|]*(?:\| (\d+) ignored)?/.exec(said) ?? [];
    expect(Number(passed) > 0, `no model was compared: ${said.slice(-3000)}`);
    found("families", models.sort().join(", "));
    found("logits and greedy tokens", `${passed} models agree, ${ignored} skipped`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

import assert from "node:assert/strict";
import { main } from "../../src/cli/main.ts";
import { readProfileFile } from "../../src/executor/sim/profile_file.ts";
import { stepsCsv } from "../../src/sim/profile/steps_csv.ts";
import type { StepSample } from "../../src/sim/profile/step_log.ts";

async function run(...argv: string[]) {
  const { log, error } = console;
  const out: string[] = [], err: string[] = [];
  console.log = (text: string) => void out.push(text);
  console.error = (text: string) => void err.push(text);
  try {
    return { code: await main(["profile", ...argv]), out: out.join("\n"), err: err.join("\n") };
  } finally {
    Object.assign(console, { log, error });
  }
}

const steps = Array.from({ length: 60 }, (_, i): StepSample => {
  const tokens = 16 * (i + 1);
  return i % 2 === 0
    ? { kind: "prefill", sequences: 1, tokens, latencyMs: 2 + 0.1 * tokens }
    : { kind: "decode", sequences: 1 + i % 9, tokens, latencyMs: 9 + 0.01 * tokens };
});

Deno.test("several models and degrees of parallelism in one file", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const csv = `${directory}/a.csv`, out = `${directory}/p.json`;
    await Deno.writeTextFile(csv, stepsCsv(steps));
    const fit = (...more: string[]) =>
      run("fit", csv, csv, "--num-gpu-blocks", "77", "--out", out, ...more);
    for (
      const more of [
        ["--model", "llama-7b", "--html", `${directory}/a.html`],
        ["--model", "llama-7b", "-tp", "2"],
        ["--model", "qwen2.5-7b", "--name", "mine"],
        ["--model", "llama-7b", "--num-gpu-blocks", "88"], // replaces the first
      ]
    ) {
      const { code, err } = await fit(...more);
      assert.equal(code, 0, err);
    }
    const profiles = readProfileFile(out);
    assert.deepEqual(
      profiles.map(({ model, tensorParallelSize: tp, blocks: [{ numBlocks }] }) => [
        model,
        tp,
        numBlocks,
      ]),
      [["llama-7b", 2, 77], ["mine", 1, 77], ["llama-7b", 1, 88]],
    );
    const [{ prefill, shape }] = profiles;
    assert.ok(Math.abs(prefill.msPerToken - 0.1) < 1e-6, `${prefill.msPerToken}`);
    assert.equal(shape.numLayers, 32);
    assert.match(await Deno.readTextFile(`${directory}/a.html`), /time of a step/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("run measures this host's executor", async () => {
  const directory = await Deno.makeTempDir();
  try {
    // A process of its own, because its worker threads start the program's entry module.
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--no-check", new URL("../../mod.ts", import.meta.url).pathname],
        ...["profile", "run", "--device", "cpu", "--csv", "grid.csv", "--out", "p.json"],
        ...["--max-batch", "4", "--max-tokens", "64", "--repeats", "4", "--cpu-kernels", "wasm"],
      ],
      cwd: directory,
    }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    assert.ok(success, text);
    assert.match(text, /^decode +36 /m);
    const [profile] = readProfileFile(`${directory}/p.json`);
    assert.match(profile.prefill.source, /steps of cpu \(wasm/);
    const csv = await Deno.readTextFile(`${directory}/grid.csv`);
    assert.match(csv, /^timestamp,instance_id,.*\n0,grid,0,/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

for (
  const [argv, message] of [
    ["", /expected llumnix profile run or llumnix profile fit CSV, not nothing/],
    ["fit", /expected files/],
    ["fit x.csv", /--model is missing/],
    ["fit no-such-file.csv --model llama-7b", /Cannot read .*no-such-file\.csv/],
    ["run --device sim", /--device sim runs on a profile itself: choose a device that computes/],
    // Before it measures, which takes minutes.
    [
      "run --model no-model --out no-directory/p.json",
      /cannot write no-directory\/p\.json: no such/,
    ],
  ] as const
) {
  Deno.test(`refused: profile ${argv}`, async () => {
    const { code, err } = await run(...argv.split(" ").filter(Boolean));
    assert.equal(code, 2, err);
    assert.match(err, message);
  });
}

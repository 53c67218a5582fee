import assert from "node:assert/strict";
import { parseProfile, toProfileJson } from "../../../src/executor/sim/profile_file.ts";
import { builtinModelNames, builtinProfile, gpuTypes } from "../../../src/executor/sim/roofline.ts";
import { resolveSimulation } from "../../../src/executor/sim/simulation.ts";
import { engineOptions } from "../../instance/support.ts";

function profileJson() {
  return toProfileJson([builtinProfile("a10", "llama-7b"), builtinProfile("a10", "qwen2.5-7b")]);
}

async function withFile(content: string, use: (path: string) => void): Promise<void> {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, content);
    use(path);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("profiles come back from their file", () => {
  const key = { memoryUtilization: 0.9, blockSize: 16, maxBatchedTokens: 2048 };
  const models = builtinModelNames.map((name) => builtinProfile(gpuTypes[1], name, key));
  models.push({ ...models[0], model: "mine", request: { msPerRequest: 5.5, source: "bench" } });
  const { prefill } = models[0];
  models.push({
    ...{ ...models[0], model: "in pieces", maxPieceTokens: 512 },
    prefill: { ...prefill, msPerSquaredToken: 1e-4 },
  });
  const json = JSON.parse(JSON.stringify(toProfileJson(models)));
  assert.deepEqual(parseProfile(json, "p.json"), models);
});

Deno.test("a malformed profile is refused by the field that is wrong", () => {
  const cases: [string, (json: ReturnType<typeof profileJson>) => void][] = [
    ["models[0].decode.ms_per_step", (json) => json.models[0].decode.ms_per_step = -1],
    ["models[1].blocks[0].num_blocks", (json) => json.models[1].blocks[0].num_blocks = 0.5],
    ["models[0].migration.gbps", (json) => json.models[0].migration.gbps = 0],
    ["version", (json) => (json as { version: number }).version = 2],
    ["models", (json) => json.models = []],
  ];
  for (const [field, spoil] of cases) {
    const json = profileJson();
    spoil(json);
    assert.throws(() => parseProfile(json, "p.json"), (error: Error) => {
      assert.equal(error.name, "UsageError");
      assert.ok(error.message.startsWith(`The profile p.json is wrong: ${field} is `));
      assert.match(error.message, /, expected [^ ]/);
      return true;
    });
  }
  assert.throws(() => parseProfile([], "p.json"), /its top level is \[\], expected an object/);
  const { models: [model] } = profileJson();
  const { swap, ...others } = model;
  const misspelt = { version: 1, models: [{ ...others, swp: swap }] };
  assert.throws(() => parseProfile(misspelt, "p.json"), /there is no field swp in models\[0\]/);
  const without = { version: 1, models: [others] };
  assert.throws(() => parseProfile(without, "p.json"), /models\[0\]\.swap is missing, expected/);
  const twice = profileJson();
  twice.models.push(twice.models[0]);
  assert.throws(() => parseProfile(twice, "p.json"), {
    name: "UsageError",
    message: "The profile p.json has llama-7b with tp 1, pp 1 twice.",
  });
});

Deno.test("an instance takes its sizes from the profile's file", async () => {
  await withFile(JSON.stringify(profileJson()), (path) => {
    const simulation = resolveSimulation(
      engineOptions({ model: "/models/Llama-7B/", profilingResultFilePath: path }),
    );
    assert.equal(simulation.numBlocks, 851);
    assert.equal(simulation.maxModelLen, 851 * 16, "the whole cache");
    assert.equal(simulation.device, path);
  });
});

Deno.test("what is not in the profile is named beside what is", async () => {
  const json = profileJson();
  json.models[1].tensor_parallel_size = 2;
  json.models[0].blocks[0].max_batched_tokens = 2048;
  await withFile(JSON.stringify(json), (path) => {
    const refuse = (options: Parameters<typeof engineOptions>[0], message: string) =>
      assert.throws(
        () => resolveSimulation(engineOptions({ profilingResultFilePath: path, ...options })),
        { name: "UsageError", message },
      );
    refuse(
      { model: "org/gpt" },
      `The profile ${path} does not have the model gpt: it has llama-7b, qwen2.5-7b. Choose one ` +
        "of them by --model.",
    );
    refuse({ model: null }, "--device sim needs --model: one of llama-7b, qwen2.5-7b.");
    refuse(
      { model: "qwen2.5-7b" },
      `The profile ${path} has qwen2.5-7b with tp 2 pp 1, and not with tp 1 pp 1.`,
    );
    refuse(
      { model: "llama-7b", maxModelLen: 4096, blockSize: 32 },
      `The profile ${path} does not say how many blocks llama-7b has with ` +
        "--gpu-memory-utilization 0.9, --block-size 32 and 4096 batched tokens; it does for " +
        "0.9 / 16 / 2048. Choose one of these, or set --num-gpu-blocks-override.",
    );
    const { numBlocks } = resolveSimulation(engineOptions({
      profilingResultFilePath: path,
      model: "llama-7b",
      blockSize: 32,
      numGpuBlocksOverride: 77,
    }));
    assert.equal(numBlocks, 77);
  });
});

Deno.test("a file that cannot be read or is not JSON is refused", async () => {
  const options = engineOptions({ model: "m", profilingResultFilePath: "/no/such/profile" });
  assert.throws(() => resolveSimulation(options), {
    name: "UsageError",
    message: "Cannot read the profile /no/such/profile: no such file or directory.",
  });
  await withFile("{", (path) => {
    assert.throws(
      () => resolveSimulation(engineOptions({ model: "m", profilingResultFilePath: path })),
      { name: "UsageError", message: /is not JSON/ },
    );
  });
});

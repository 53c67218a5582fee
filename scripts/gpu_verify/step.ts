/**
 * Whole decode steps of an executor, from the embedding to the chosen token: as a share of a copy on the device, and
 * how long the device waits for the host between them. The weights are random: only their number matters.
 */
import { openCuda } from "../../ffi/cuda/open.ts";
import { engineDefaults } from "../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import type { StepInput } from "../../src/executor/executor.ts";
import { loadCudaModel } from "../../src/executor/cuda/load.ts";
import { Steps } from "../../src/executor/cuda/self_test/cases.ts";
import { resolveModel } from "../../src/model/resolve.ts";
import { allTensors, decoderSpec, numElements } from "../../src/model/structure.ts";
import { Device, found, isShort, reached } from "./device.ts";

/** Llama-3.1-8B. */
const config = {
  ...{ architectures: ["LlamaForCausalLM"], model_type: "llama", torch_dtype: "bfloat16" },
  ...{ hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32 },
  ...{ num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 128256, head_dim: 128 },
  ...{ max_position_embeddings: 8192, rms_norm_eps: 1e-5, rope_theta: 500000 },
  ...{ hidden_act: "silu", tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2 },
};
const context = isShort ? 20 : 1000, stepsInTurn = isShort ? 4 : 200, pairs = isShort ? 2 : 30;

const directory = await Deno.makeTempDir();
await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(config));
const options: EngineOptions = {
  ...engineDefaults(),
  device: "cuda",
  ...isShort ? { model: "llumnix-tiny" } : { model: directory, loadFormat: "dummy" as const },
  ...{ dtype: "bfloat16", maxModelLen: isShort ? 128 : 2048, maxNumSeqs: 4 },
  ...{ numGpuBlocksOverride: 256, preemptionMode: "recompute" },
};
const model = resolveModel(options);
const startMs = performance.now();
const executor = await loadCudaModel({ device: "cuda", options, hostShare: 1 }, {
  ...{ model, plain: [], libraries: {} },
  lease: { ordinals: [0], sharedBy: 1, release() {} },
});
found(
  "loading, with random weights that are made meanwhile",
  `${seconds(performance.now() - startMs)} s`,
);

const longest = context + stepsInTurn + 4 * pairs + 8;
const steps = new Steps(executor, longest), pipeline = executor.pipeline!;
const sequence = steps.add(context, { temperature: 0 });
const { tokenIds: [token] } = await steps.step("prefill", [sequence]);
/** The next step of the sequence, whose token is known, or is that of the step before. */
const next = (known?: number): StepInput =>
  known === undefined
    ? { ...steps.input("decode", [sequence], [-1]), isAhead: true }
    : steps.input("decode", [sequence], [known]);

await pipeline.start(next(token));
for (let i = 0; i < 4; i++) await pipeline.follow(next()); // graphs are recorded
const aheadMs = performance.now();
for (let i = 0; i < stepsInTurn; i++) await pipeline.follow(next());
const stepMs = (performance.now() - aheadMs) / stepsInTurn;
let newest = (await pipeline.collect()).tokenIds[0];

// Two steps are enqueued at once, so that the second begins as soon as the first ends. The time between their
// ends is that of the device alone.
const deviceMs: number[] = [], givenMs: number[] = [];
for (let i = 0; i < pairs; i++) {
  const beforeMs = performance.now();
  await pipeline.start(next(newest));
  givenMs.push(performance.now() - beforeMs);
  await pipeline.follow(next());
  const firstMs = performance.now();
  newest = (await pipeline.collect()).tokenIds[0];
  deviceMs.push(performance.now() - firstMs);
}
const device = median(deviceMs), gapUs = Math.max(0, stepMs - device) * 1000;
found("a decode step, one after the other", `${(stepMs * 1000).toFixed(0)} us`);
found("a decode step of the device alone", `${(device * 1000).toFixed(0)} us`);
found("the host's work to give a step", `${(median(givenMs) * 1000).toFixed(0)} us`);
found("the device waits for the host", `${gapUs.toFixed(0)} us a step`);
reached("host-gap", gapUs);

const rate = copyRate();
const tensors = allTensors(decoderSpec(model.config)).reduce(
  (sum, { shape }) => sum + numElements(shape),
  0,
);
const { numLayers, numKvHeads, headDim, vocabSize, hiddenSize } = model.config;
// Of the embedding a step reads a row.
const bytes = 2 * (tensors - vocabSize * hiddenSize) +
  2 * 2 * context * numLayers * numKvHeads * headDim;
const share = bytes / stepMs / rate;
found("device copy", `${(rate / 1e6).toPrecision(3)} GB/s`);
found(
  "bytes that a step reads",
  `${(bytes / 1e9).toFixed(2)} GB, ${(share * 100).toFixed(0)}% of the copy`,
);
reached("step-8b", share);
await executor.close();
await Deno.remove(directory, { recursive: true });

/** Bytes read and written a millisecond by a copy within the device. */
function copyRate(): number {
  const byteLength = isShort ? 1 << 20 : 1 << 30;
  const on = new Device(), { cuda, stream } = on;
  const [from, to] = [cuda.malloc(byteLength), cuda.malloc(byteLength)];
  const tookMs = on.time(isShort ? 1 : 10, () => cuda.copy(to, from, byteLength, stream));
  for (const address of [from, to]) openCuda().free(address);
  return 2 * byteLength / tookMs;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

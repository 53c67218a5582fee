/** Rows for which the device and the host's sampler have to choose alike. */
import assert from "node:assert/strict";
import { openCuda } from "../../../ffi/cuda/open.ts";
import { mostTopTokens, SamplingKernels } from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import { addressOf, nativeBuffer } from "../../../ffi/memory.ts";
import type { SamplingParams } from "../../../src/core/protocol/generate.ts";
import type { Random } from "../../../src/core/random.ts";
import { CudaTokenChooser } from "../../../src/executor/cuda/cuda_token_chooser.ts";
import { DeviceMemory } from "../../../src/executor/cuda/device_memory.ts";
import { Sampler } from "../../../src/executor/sampling/sampler.ts";
import { directory } from "../../ffi/software_device/device.ts";
import { randomLogits, randomParams } from "../sampling/random_sampling.ts";

const ROWS = 9;

interface Row {
  readonly params: SamplingParams;
  readonly prompt: readonly number[];
  readonly output: readonly number[];
  readonly logits: Float32Array;
}

function randomRow(random: Random, vocabSize: number): Row {
  const token = () => random.below(vocabSize);
  const tokens = (most: number) => Array.from({ length: random.below(most) }, token);
  const isRestricted = random.below(3) === 0;
  const output = tokens(12);
  const params: SamplingParams = {
    ...randomParams(random, vocabSize, { minTokens: 10, logprobs: mostTopTokens + 1 }),
    ...(isRestricted && {
      logitBias: [...new Set(tokens(5))].map((id) => [id, 200 * random.uniform() - 100] as const),
      ...(random.below(2) === 0 && { allowedTokenIds: [token(), ...tokens(6)] }),
      // Words of one token, and words of which the output has the beginning.
      badWords: [...tokens(4).map((id) => [id]), ...output.slice(-1).map((id) => [id, token()])],
    }),
  };
  return { params, prompt: tokens(6), output, logits: randomLogits(random, vocabSize, true) };
}

/** A row for which nothing would be possible, so that what is excluded counts again, with its penalties. */
function impossibleRow(random: Random, vocabSize: number): Row {
  const tokens = [...new Set([0, vocabSize - 1])];
  const { params, ...row } = randomRow(random, vocabSize);
  return {
    ...row,
    prompt: tokens.toReversed(),
    output: tokens,
    params: {
      ...params,
      ...{ allowedTokenIds: tokens, badWords: tokens.map((token) => [token]) },
      ...{ repetitionPenalty: 1.5, frequencyPenalty: 0.5 },
    },
  };
}

/** What the host does, and how it fails. */
function outcomeOf(action: () => unknown): unknown {
  try {
    return action();
  } catch (error) {
    return (error as Error).message;
  }
}

/** A chooser on the software device, with its logits. */
function openChooser(vocabSize: number, editWords?: number) {
  const cuda = openCuda({ from: directory! });
  cuda.setDevice(0);
  const stream = cuda.createStream();
  const memory = new DeviceMemory(cuda);
  const logits = memory.allocate(ROWS * vocabSize * 4, "logits", "");
  const kernels = new SamplingKernels(stream, { from: directory! });
  const chooser = new CudaTokenChooser({
    ...{ cuda, stream, memory, kernels, vocabSize, logits, editWords },
    ...{ maxSequences: ROWS, maxRows: ROWS },
  });
  const upload = (rows: readonly Row[]) => {
    const bytes = nativeBuffer(ROWS * vocabSize * 4);
    rows.forEach(({ logits }, i) => new Float32Array(bytes.buffer).set(logits, i * vocabSize));
    cuda.copy(logits, addressOf(bytes), bytes.length, stream);
    cuda.synchronizeStream(stream);
  };
  const close = () => {
    cuda.synchronizeStream(stream);
    chooser.close();
    memory.free();
    cuda.destroyStream(stream);
  };
  return { chooser, upload, close };
}

/** Compares the choices for random rows. */
export function compareChoosers(random: Random, vocabSize: number): void {
  const rows = Array.from({ length: ROWS - 1 }, () => randomRow(random, vocabSize));
  rows.push(impossibleRow(random, vocabSize));
  const host = new Sampler(vocabSize), device = new Sampler(vocabSize);
  rows.forEach(({ params, prompt, output }, handle) => {
    const start = { handle, params, promptTokenIds: prompt, outputTokenIds: output };
    host.add(start);
    device.add(start);
  });
  const { chooser, upload, close } = openChooser(vocabSize);
  upload(rows);
  chooser.begin();
  const taken = chooser.choose(rows.map((_, handle) => device.request(handle)), 0);
  const chosen = chooser.end()();
  close();
  rows.forEach(({ logits, ...row }, handle) => {
    const what = `vocabulary ${vocabSize}, row ${handle}: ${JSON.stringify(row)}`;
    assert.equal(taken[handle], true, what);
    const expected = outcomeOf(() => host.sample(handle, logits.slice()));
    const found = outcomeOf(() => device.acceptChosen(handle, chosen.get(handle)!));
    assert.deepEqual(found, expected, what);
  });
}

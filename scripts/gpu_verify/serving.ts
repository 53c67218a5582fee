/**
 * A service of one instance: from its start to the first token, then loads of several rates; beside it Hugging Face
 * transformers and a hand-written loop of a CUDA graph decode the same model.
 */
import { startService } from "../bench/service.ts";
import { expect, found, isShort, reached } from "./device.ts";
import { missingTransformers, runPython } from "./python.ts";
import { bench, completions, load, serveOptions, withModel } from "./service.ts";

const rates = isShort ? [20] : [2, 8, 32], secondsOfRate = isShort ? 0.2 : 6;
const batches = isShort ? [1] : [1, 16];

await withModel(async (model) => {
  const cache = await Deno.makeTempDir();
  try {
    const start = () =>
      startService(serveOptions(model), { env: { XDG_CACHE_HOME: cache }, onLog: keep });
    const readMs = await timeToRead(`${model}/model.safetensors`);
    await coldStart("first start, with the self-test", readMs, start);
    const service = await coldStart("later start", readMs, start, true);
    try {
      await measureLoads(service!);
    } finally {
      await service![Symbol.asyncDispose]();
    }
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
  await measurePeers(model);
});

/** Warnings of the service: what it does without. */
function keep(line: string): void {
  if (/ WARN/.test(line) && !/random|dummy/.test(line)) console.error(line);
}

/** Milliseconds to read a file that is in the page cache. */
async function timeToRead(path: string): Promise<number> {
  const buffer = new Uint8Array(8 << 20);
  const startMs = performance.now();
  using file = await Deno.open(path);
  while (await file.read(buffer) !== null);
  return performance.now() - startMs;
}

/** @returns the running service if `isKept`, else null: it has been stopped */
async function coldStart(
  what: string,
  readMs: number,
  start: () => ReturnType<typeof startService>,
  isKept = false,
) {
  const startMs = performance.now();
  const service = await start();
  await completions(service, 1, 1);
  const tokenS = (performance.now() - startMs) / 1000, beyondS = tokenS - readMs / 1000;
  found(
    what,
    `${tokenS.toFixed(1)} s to the first token, ${beyondS.toFixed(1)} s beyond reading the weights`,
  );
  if (isKept) {
    reached("cold-start", beyondS);
    return service;
  }
  await service[Symbol.asyncDispose]();
  return null;
}

async function measureLoads(service: Parameters<typeof bench>[0]): Promise<void> {
  const of = `${load.promptTokens} + ${load.outputTokens} tokens`;
  await bench(service, isShort ? 1 : 8, "--max-concurrency=4"); // graphs are recorded
  for (const batch of batches) {
    const result = await bench(service, 2 * batch, `--max-concurrency=${batch}`);
    found(
      `llumnix, ${batch} at a time, ${of}`,
      `${result.median_tpot_ms.toFixed(3)} ms a token, TTFT ${result.median_ttft_ms.toFixed(1)} ms`,
    );
  }
  for (const rate of rates) {
    const result = await bench(
      service,
      Math.max(2, rate * secondsOfRate),
      ...[`--request-rate=${rate}`, "--metric-percentiles=99"],
    );
    found(
      `llumnix, ${rate} requests/s, ${of}`,
      `${result.output_throughput.toFixed(0)} tokens/s, TTFT ${
        result.median_ttft_ms.toFixed(1)
      } ms (99%: ${result.p99_ttft_ms.toFixed(1)}), ${result.median_tpot_ms.toFixed(3)} ms a token`,
    );
  }
}

async function measurePeers(model: string): Promise<void> {
  const missing = await missingTransformers();
  if (missing !== null) return found("transformers, CUDA graph loop", `not measured: ${missing}`);
  const program = new URL("peers.py", import.meta.url).pathname;
  const words = [load.promptTokens, load.outputTokens, ...batches].map(String);
  const { success, complaint } = await runPython([program, model, ...words]);
  expect(success, `peers.py: ${complaint}`);
}

/** `serve` on the device with a random model of a 1B shape, and loads of `llumnix bench`. */
import { makeModel, parseMakeModelArgs } from "../make_model.ts";
import type { BenchService } from "../bench/service.ts";
import { expect, isShort } from "./device.ts";

/** Llama-3.2-1B; on the software device a model of a few thousand weights. */
const shape = isShort
  ? "--dtype bf16 --max-positions 1024"
  : "--dtype bf16 --hidden 2048 --layers 16 --heads 32 --kv-heads 8 --intermediate 8192 " +
    "--vocab 128256 --tied --max-positions 8192";

export const load = isShort
  ? { promptTokens: 12, outputTokens: 6 }
  : { promptTokens: 512, outputTokens: 128 };

/** A model directory that is gone after `use`. */
export async function withModel(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "gpu-verify-model-" });
  try {
    makeModel(parseMakeModelArgs(["--out", directory, ...shape.split(" ")]));
    await use(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Options of `serve` for every run. */
export const serveOptions = (model: string) => [
  ...["--device=cuda", `--model=${model}`, "--allow-shared-device", "--max-num-seqs=64"],
  ...["--max-model-len=" + (isShort ? 256 : 4096), "--gpu-memory-utilization=0.5"],
  ...isShort ? ["--num-gpu-blocks-override=256"] : [],
];

/** What a load showed: `llumnix bench --save-result`, as far as it is used. */
export interface LoadResult {
  readonly completed: number;
  readonly failed: number;
  readonly output_throughput: number;
  readonly median_ttft_ms: number;
  readonly median_tpot_ms: number;
  readonly p99_ttft_ms: number;
}

/** Puts a load of equal random prompts on a service. @param words more options of `llumnix bench` */
export async function bench(
  { port }: Pick<BenchService, "port">,
  prompts: number,
  ...words: string[]
): Promise<LoadResult> {
  const directory = await Deno.makeTempDir();
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--no-check", "mod.ts", "bench", `--port=${port}`, "--disable-tqdm"],
        ...[`--num-prompts=${prompts}`, `--random-input-len=${load.promptTokens}`],
        ...[`--random-output-len=${load.outputTokens}`, "--ignore-eos", "--save-result"],
        ...[`--result-dir=${directory}`, "--result-filename=result.json", ...words],
      ],
      ...{ stdout: "null", stderr: "piped" },
    }).output();
    expect(success, `llumnix bench: ${new TextDecoder().decode(stderr).slice(-2000)}`);
    const result: LoadResult = JSON.parse(await Deno.readTextFile(`${directory}/result.json`));
    expect(result.failed === 0 && result.completed === prompts, `${result.failed} requests failed`);
    return result;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Greedy completions of prompts, with log probabilities, which tell any difference of a bit. */
export function completions(
  { port }: Pick<BenchService, "port">,
  count: number,
  maxTokens: number,
): Promise<string[]> {
  return Promise.all(Array.from({ length: count }, async (_, i) => {
    const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        prompt: `request ${i} `.repeat(1 + i % 5 * 3),
        ...{ max_tokens: maxTokens, temperature: 0, logprobs: 1, ignore_eos: true },
      }),
    });
    const text = await response.text();
    expect(response.ok, `a completion: ${text}`);
    return JSON.stringify(JSON.parse(text).choices);
  }));
}

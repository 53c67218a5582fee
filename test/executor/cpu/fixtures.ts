import { makeModel, parseMakeModelArgs } from "../../../scripts/make_model.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { centred, centredLogits, Driver, load } from "./harness.ts";

/** What transformers computed for one model: see scripts/make_reference.py. */
export interface Reference {
  readonly name: string;
  /** Arguments of make_model.ts. */
  readonly arguments: string;
  readonly prompt: readonly number[];
  /** Rows of the prompt whose logits are kept. */
  readonly rows: readonly number[];
  readonly f32: { readonly logits: string; readonly tokens: readonly number[] };
  readonly bf16: { readonly logits: string; readonly torchRelativeError: number };
}

/** References that were made on this host: see scripts/gpu_verify/transformers.ts. */
const otherDirectory = Deno.env.get("LLUMNIX_REFERENCES");
const directory = otherDirectory === undefined
  ? new URL("../../fixtures/models/", import.meta.url)
  : new URL(`file://${otherDirectory}/`);

export const references: readonly Reference[] = [...Deno.readDirSync(directory)]
  .map(({ name }) => name.replace(/\.json$/, ""))
  .sort()
  .map((name) => {
    const text = Deno.readTextFileSync(new URL(`${name}.json`, directory));
    return { name, ...JSON.parse(text) };
  });

/** Reference logits by row, less each row's mean. */
export function referenceLogits(reference: Reference, base64: string): Float64Array[] {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const values = Float64Array.from(new Float32Array(bytes.buffer));
  const vocabSize = values.length / reference.rows.length;
  return reference.rows.map((_, i) => centred(values.slice(i * vocabSize, (i + 1) * vocabSize)));
}

/** Makes the model in a temporary directory that is gone after `use`. */
export async function withModel<T>(
  args: string,
  use: (directory: string) => Promise<T> | T,
): Promise<T> {
  const out = Deno.makeTempDirSync();
  try {
    makeModel(parseMakeModelArgs(["--out", out, ...args.split(" ").filter(Boolean)]));
    return await use(out);
  } finally {
    Deno.removeSync(out, { recursive: true });
  }
}

/** Makes the first element of a row of a float32 tensor NaN. */
export function spoil(path: string, tensor: string, row = 0): void {
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer);
  const headerBytes = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
  const { data_offsets: [begin], shape: [, columns = 1] } = header[tensor];
  view.setFloat32(8 + headerBytes + begin + 4 * row * columns, NaN, true);
  Deno.writeFileSync(path, bytes);
}

/** Runs the reference's prompt; gives logits of its rows and greedy tokens, 64 unless told otherwise. */
export async function runReference(
  reference: Reference,
  args: string,
  options: Partial<EngineOptions>,
  loadExecutor: (options: Partial<EngineOptions>) => Promise<Executor> = load,
  numTokens = 64,
): Promise<{ logits: Float64Array[]; tokens: number[] }> {
  return await withModel(`${reference.arguments} ${args}`, async (model) => {
    const executor = await loadExecutor({ model, ...options });
    const { vocabSize } = executor.info;
    const driver = new Driver(executor);
    const all = { logprobs: vocabSize, promptLogprobs: vocabSize };
    const scored = driver.add(reference.prompt, all);
    await driver.prefill(scored);
    const logits = reference.rows.map((row) => {
      const scores = row + 1 < reference.prompt.length
        ? scored.promptLogprobs![row + 1]
        : scored.logprobs[0];
      return centredLogits(scores!, vocabSize);
    });
    const tokens = await driver.generate(driver.add(reference.prompt), numTokens);
    await executor.close();
    return { logits, tokens };
  });
}

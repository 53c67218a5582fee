import { makeModel, parseMakeModelArgs } from "../../../scripts/make_model.ts";
import { centred } from "./harness.ts";

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

const directory = new URL("../../fixtures/models/", import.meta.url);

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

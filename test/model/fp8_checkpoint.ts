/** Turns a model that a test has made into a checkpoint in 8 bits, as tools for vLLM write them. */
import { openByReading, SafetensorsFile } from "../../src/model/safetensors.ts";
import { quantizeRow } from "../../src/model/fp8.ts";
import { tensorValues } from "../../src/model/tensor.ts";

interface Stored {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface CheckpointOptions {
  /** One scale for a tensor, or one for each output. */
  readonly scales: "tensor" | "output";
  /** Changes what is written. */
  readonly change?: (tensors: Map<string, Stored>) => void;
}

/** Linear weights of layers get 8 bits; the file is written anew, and config.json names the method. */
export function quantizeCheckpoint(directory: string, { scales, change }: CheckpointOptions): void {
  const path = `${directory}/model.safetensors`;
  const config = JSON.parse(Deno.readTextFileSync(`${directory}/config.json`));
  const header = headerOf(Deno.readFileSync(path));
  const file = new SafetensorsFile(path, openByReading);
  const tensors = new Map<string, Stored>();
  for (const [name, { dtype, shape }] of header) {
    const tensor = file.read({ name, shape });
    if (!/layers\..*_proj\.weight$/.test(name)) {
      tensors.set(name, { dtype, shape, bytes: tensor.bytes });
      continue;
    }
    const [rows, inputs] = shape, values = tensorValues(tensor, tensor.dtype);
    const quantized = scales === "output"
      ? Array.from(
        { length: rows },
        (_, row) => quantizeRow(values.subarray(row * inputs, (row + 1) * inputs)),
      )
      : [quantizeRow(values)];
    const bytes = new Uint8Array(quantized.flatMap(({ codes }) => Array.from(codes)));
    const scale = Float32Array.from(quantized, ({ scale }) => scale);
    tensors.set(name, { dtype: "F8_E4M3", shape, bytes });
    tensors.set(`${name}_scale`, {
      ...{ dtype: "F32", shape: scales === "output" ? [rows, 1] : [] },
      bytes: new Uint8Array(scale.buffer),
    });
  }
  file.close();
  change?.(tensors);
  write(path, tensors);
  config.quantization_config = { quant_method: "fp8", activation_scheme: "dynamic" };
  Deno.writeTextFileSync(`${directory}/config.json`, JSON.stringify(config));
}

function headerOf(file: Uint8Array<ArrayBuffer>): [string, Stored][] {
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  return Object.entries<Stored>(header).filter(([name]) => name !== "__metadata__");
}

function write(path: string, tensors: ReadonlyMap<string, Stored>): void {
  let end = 0;
  const header = Object.fromEntries(
    [...tensors].map(([name, { dtype, shape, bytes }]) => [
      name,
      { dtype, shape, data_offsets: [end, end += bytes.length] },
    ]),
  );
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const { bytes } of tensors.values()) {
    file.set(bytes, at);
    at += bytes.length;
  }
  Deno.writeFileSync(path, file);
}

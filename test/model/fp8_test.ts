/** Numbers of 8 bits, and checkpoints that are stored in them. */
import assert from "node:assert/strict";
import { parseModelConfig } from "../../src/model/config.ts";
import { e4m3Values, RoundedWeights, toE4m3 } from "../../src/model/fp8.ts";
import { openByReading } from "../../src/model/safetensors.ts";
import { SafetensorsWeights } from "../../src/model/safetensors_weights.ts";
import { allTensors, decoderSpec } from "../../src/model/structure.ts";
import { tensorValues } from "../../src/model/tensor.ts";
import { withModel } from "../executor/cpu/fixtures.ts";
import { type CheckpointOptions, quantizeCheckpoint } from "./fp8_checkpoint.ts";

Deno.test("e4m3: every number has its code, others get the nearest", () => {
  e4m3Values.forEach((value, code) => {
    if (Number.isNaN(value)) return assert.equal(toE4m3(value) & 0x7f, 0x7f);
    assert.equal(toE4m3(value), code, `${value}`);
  });
  const sorted = e4m3Values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  assert.deepEqual([sorted[0], sorted.at(-1)], [-448, 448]);
  const distance = (value: number) => Math.abs(e4m3Values[toE4m3(value)] - value);
  for (let i = 1; i < sorted.length; i++) {
    for (const share of [0.2, 0.499, 0.501, 0.8]) {
      const value = Math.fround(sorted[i - 1] + share * (sorted[i] - sorted[i - 1]));
      assert.equal(distance(value), Math.min(...sorted.map((one) => Math.abs(one - value))));
    }
    // Ties go to the code without the last bit.
    assert.equal(toE4m3((sorted[i - 1] + sorted[i]) / 2) & 1, 0);
  }
  assert.deepEqual([1e9, Infinity, 449, -1e9].map((value) => e4m3Values[toE4m3(value)]), [
    ...[448, 448, 448, -448],
  ]);
});

const shape = "--layers 1 --hidden 32 --heads 2 --kv-heads 1 --vocab 264 --dtype bf16";

/** Gives the weights of a checkpoint, and those of the model it was made of, rounded. */
async function withCheckpoint(
  options: CheckpointOptions,
  use: (stored: SafetensorsWeights, rounded: RoundedWeights, directory: string) => void,
): Promise<void> {
  await withModel(shape, (original) =>
    withModel(shape, (directory) => {
      quantizeCheckpoint(directory, options);
      const stored = new SafetensorsWeights(directory, openByReading);
      const spec = decoderSpec(configOf(original));
      const source = new SafetensorsWeights(original, openByReading);
      use(stored, new RoundedWeights(source, spec), directory);
      for (const one of [stored, source]) one.close();
    }));
}

function configOf(directory: string) {
  return parseModelConfig(JSON.parse(Deno.readTextFileSync(`${directory}/config.json`)), "config");
}

Deno.test("a checkpoint in 8 bits gives the weights that it stores", async () => {
  for (const scales of ["output", "tensor"] as const) {
    await withCheckpoint({ scales }, (stored, rounded, directory) => {
      for (const spec of allTensors(decoderSpec(configOf(directory)))) {
        stored.check(spec);
        const found = stored.read(spec), expected = rounded.read(spec);
        const values = tensorValues(found, found.dtype);
        if (scales === "output") {
          assert.deepEqual(values, tensorValues(expected, expected.dtype), spec.name);
          continue;
        }
        const scaled = stored.readScaled(spec);
        assert.equal(scaled === null, !spec.name.includes("_proj.weight"));
        if (scaled === null) continue;
        assert.equal(new Set(scaled.scales).size, 1);
        values.forEach((value, i) =>
          assert.equal(value, Math.fround(e4m3Values[scaled.codes[i]] * scaled.scales[0]))
        );
      }
    });
  }
});

Deno.test("a damaged or unknown checkpoint in 8 bits is refused", async () => {
  const name = "model.layers.0.self_attn.q_proj.weight";
  const cases: readonly [NonNullable<CheckpointOptions["change"]>, RegExp][] = [
    [
      (tensors) => tensors.delete(`${name}_scale`),
      /q_proj.weight in .* is stored in 8 bits without its scale: expected .*q_proj.weight_scale/,
    ],
    [
      (tensors) =>
        tensors.set(`${name}_scale`, { dtype: "F32", shape: [2], bytes: new Uint8Array(8) }),
      /weight_scale in .* has shape \[2\]; expected one scale, or 32, one for each output/,
    ],
    [
      (tensors) => tensors.get(`${name}_scale`)!.bytes.fill(0),
      /weight_scale in .* has scales that are not positive numbers/,
    ],
    [
      (tensors) => tensors.get(name)!.bytes[5] = 0xff,
      /q_proj.weight in .* has weights that are NaN/,
    ],
  ];
  for (const [change, message] of cases) {
    await withCheckpoint(
      { scales: "output", change: (tensors) => void change(tensors) },
      (stored) => {
        assert.throws(() => stored.read({ name, shape: [32, 32] }), {
          name: "ModelError",
          message,
        });
      },
    );
  }
  await withModel(shape, (directory) => {
    const config = JSON.parse(Deno.readTextFileSync(`${directory}/config.json`));
    for (
      const other of [{ quant_method: "awq" }, { quant_method: "fp8", weight_block_size: [1, 1] }]
    ) {
      assert.throws(
        () => parseModelConfig({ ...config, quantization_config: other }, "config.json"),
        {
          name: "ModelError",
          message:
            /quantised weights .* are supported only as "quant_method": "fp8" without "weight_block_size"/,
        },
      );
    }
  });
});

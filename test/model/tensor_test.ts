import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import type { DType } from "../../src/core/dtype.ts";
import { convertTensor, encodeFloats, tensorValues, toBfloat16 } from "../../src/model/tensor.ts";

function tensor(values: ArrayLike<number>, dtype: DType) {
  const bytes = encodeFloats(Float32Array.from(values), dtype);
  return { name: "t", dtype, shape: [values.length], bytes };
}

Deno.test("bfloat16 rounds to nearest even and keeps what is special", () => {
  const bits = (value: number) => toBfloat16(Float32Array.of(value))[0];
  assert.equal(bits(1), 0x3f80);
  assert.equal(bits(-0), 0x8000);
  assert.equal(bits(1 + 2 ** -8), 0x3f80, "a tie goes to even");
  assert.equal(bits(1 + 3 * 2 ** -8), 0x3f82, "a tie goes to even");
  assert.equal(bits(1 + 2 ** -8 + 2 ** -20), 0x3f81);
  assert.equal(bits(3.4028234e38), 0x7f80, "overflow is infinity");
  assert.equal(bits(-Infinity), 0xff80);
  assert.ok((bits(NaN) & 0x7fff) > 0x7f80);
});

Deno.test("conversions: exact when widening, half an ulp when narrowing", () => {
  const random = new Random(1);
  const values = Float32Array.from({ length: 3000 }, () => random.normal());
  for (const [dtype, ulp] of [["float16", 2 ** -11], ["bfloat16", 2 ** -8]] as const) {
    const narrow = convertTensor(tensor(values, "float32"), dtype);
    assert.equal(narrow.bytes.length, 6000);
    const wide = tensorValues(narrow, "float32");
    wide.forEach((value, i) =>
      assert.ok(Math.abs(value - values[i]) <= ulp * Math.abs(values[i]) + 2 ** -25)
    );
    assert.deepEqual(convertTensor(convertTensor(narrow, "float32"), dtype).bytes, narrow.bytes);
  }
});

Deno.test("conversions: a tensor of more than one chunk", () => {
  const values = Float32Array.from({ length: (1 << 20) + 5 }, (_, i) => i % 251);
  const converted = convertTensor(tensor(values, "float32"), "bfloat16");
  assert.deepEqual(tensorValues(converted, "bfloat16"), values);
});

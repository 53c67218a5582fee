/** Matrix products of the software device, by the bindings of cuBLASLt, against float64. */
import assert from "node:assert/strict";
import { CublasLt, type ElementType, type LinearShape } from "../../../ffi/cublaslt/cublaslt.ts";
import { DeviceLostError } from "../../../ffi/cuda/errors.ts";
import { type Bench, deviceTest, directory } from "./device.ts";

/** Float32 values as `type`, and what they are after rounding. */
function encode(values: readonly number[], type: ElementType): [Uint8Array<ArrayBuffer>, number[]] {
  const typed = type === "float32"
    ? Float32Array.from(values)
    : type === "float16"
    ? Float16Array.from(values)
    : Uint16Array.from(values, toBFloat16);
  return [new Uint8Array(typed.buffer), decode(new Uint8Array(typed.buffer), type)];
}

function decode(bytes: Uint8Array<ArrayBuffer>, type: ElementType): number[] {
  if (type === "float32") return [...new Float32Array(bytes.buffer)];
  if (type === "float16") return [...new Float16Array(bytes.buffer)];
  const words = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
  return [...new Float32Array(words.buffer)];
}

function toBFloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
  return (bits + 0x7fff + (bits >>> 16 & 1)) >>> 16;
}

const values = (count: number, step: number) =>
  Array.from({ length: count }, (_, i) => Math.sin(i * step) * 2);

/** The largest difference from the product in float64, relative to its largest element. */
function errorOf(
  bench: Bench,
  shape: Omit<LinearShape, "workspaceBytes" | "bias">,
  biased: boolean,
) {
  const { rows, inputs, outputs, type, outputType } = shape;
  const { cuda, device, read } = bench;
  const blas = CublasLt.open({ from: directory! });
  const [xBytes, x] = encode(values(rows * inputs, 0.7), type);
  const [wBytes, w] = encode(values(outputs * inputs, 1.3), type);
  const [biasBytes, bias] = encode(values(outputs, 2.1), outputType);
  const workspaceBytes = 1 << 20;
  const plan = blas.planLinear({
    ...shape,
    workspaceBytes,
    ...(biased ? { bias: device(biasBytes) } : {}),
  });
  const [yBytes] = encode(new Array(rows * outputs).fill(0), outputType);
  const y = device(yBytes), stream = cuda.createStream(), workspace = cuda.malloc(workspaceBytes);
  plan.run({ x: device(xBytes), weights: device(wBytes), y, workspace, stream });
  assert.deepEqual(read(y, yBytes.byteLength), yBytes, "it waits in its stream");
  cuda.synchronizeStream(stream);
  const found = decode(read(y, yBytes.byteLength), outputType);
  plan.destroy();
  blas.close();
  let worst = 0, largest = 0;
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = biased ? bias[output] : 0;
      for (let k = 0; k < inputs; k++) sum += x[row * inputs + k] * w[output * inputs + k];
      largest = Math.max(largest, Math.abs(sum));
      worst = Math.max(worst, Math.abs(found[row * outputs + output] - sum));
    }
  }
  return worst / largest;
}

for (const type of ["float32", "bfloat16", "float16"] as const) {
  for (const outputType of [type, "float32"] as const) {
    deviceTest(`products of ${type} into ${outputType}`, "", (bench) => {
      const tolerance = outputType === "float32" ? 1e-5 : outputType === "float16" ? 1e-3 : 5e-3;
      const shape = { rows: 5, inputs: 96, outputs: 17, type, outputType };
      for (const biased of [false, true]) assert(errorOf(bench, shape, biased) < tolerance);
    });
  }
}

deviceTest("a product of freed memory ends in error 700", "", ({ cuda }) => {
  const blas = CublasLt.open({ from: directory! });
  const shape = { rows: 2, inputs: 8, outputs: 4, type: "float32", outputType: "float32" } as const;
  const plan = blas.planLinear({ ...shape, workspaceBytes: 0 });
  const [x, weights, y] = [cuda.malloc(64), cuda.malloc(128), cuda.malloc(32)];
  const stream = cuda.createStream();
  plan.run({ x, weights, y, workspace: 0n, stream });
  cuda.free(weights);
  assert.throws(() => cuda.synchronizeStream(stream), DeviceLostError);
});

deviceTest("a product beyond its memory is refused", "", ({ cuda }) => {
  const blas = CublasLt.open({ from: directory! });
  const shape = { rows: 2, inputs: 8, outputs: 4, type: "float32", outputType: "float32" } as const;
  const plan = blas.planLinear({ ...shape, workspaceBytes: 0 });
  const operands = { weights: cuda.malloc(128), y: cuda.malloc(32), workspace: 0n };
  const stream = cuda.createStream(), x = cuda.malloc(32);
  assert.throws(() => plan.run({ ...operands, x, stream }), /CUBLAS_STATUS_INVALID_VALUE/);
});

import assert from "node:assert/strict";
import {
  complaintsOf,
  fitOf,
  parsePtxas,
  tableOf,
  targets,
} from "../../scripts/cuda_kernel_table.ts";

const log = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'linear_add_bf16' for 'sm_90a'
ptxas info    : Function properties for linear_add_bf16
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 58 registers, used 1 barriers
ptxas info    : Compiling entry function 'decode_attention_f16_128' for 'sm_90a'
    8 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 163 registers, used 1 barriers, 16 bytes smem
`;
const [a100, l40s, h200] = targets;

Deno.test("kernel table: reads what ptxas prints", () => {
  assert.deepEqual(parsePtxas(log), [
    { name: "linear_add_bf16", registers: 58, spilledBytes: 0, staticSharedBytes: 0 },
    { name: "decode_attention_f16_128", registers: 163, spilledBytes: 8, staticSharedBytes: 16 },
  ]);
  assert.throws(
    () => parsePtxas("Compiling entry function 'x' for 'sm_80'\n"),
    /no registers of x/,
  );
});

Deno.test("kernel table: blocks of a multiprocessor by registers and shared memory", () => {
  const [linear, attention] = parsePtxas(log);
  // 6 stages of 16 KiB, sums of 4 KiB, a row of 4096 + 32 elements of 2 bytes.
  const linearBytes = (6 * 16 + 4) * 1024 + 4128 * 2;
  assert.deepEqual(fitOf(linear, h200), {
    blocks: 2,
    sharedBytes: linearBytes,
    loadingBytes: 2 * 5 * 16 * 1024,
  });
  assert.equal(fitOf(linear, l40s)!.blocks, 1, "rings of 4 stages, in 100 KiB");
  assert.equal(fitOf(attention, h200)!.blocks, 2);
  assert.equal(fitOf({ ...attention, registers: 255 }, h200)!.blocks, 2, "of 128 threads");
  assert.equal(fitOf({ ...linear, registers: 200 }, h200)!.blocks, 1, "of 256 threads");
  assert.equal(fitOf({ ...linear, name: "embed_bf16" }, h200), null);
});

Deno.test("kernel table: refuses spills, and what does not fit", () => {
  const [linear, attention] = parsePtxas(log);
  assert.deepEqual(complaintsOf(linear, h200), []);
  assert.deepEqual(complaintsOf(attention, h200), [
    "decode_attention_f16_128 on sm_90a: spills 8 bytes, 0 are allowed",
  ]);
  const huge = { ...linear, staticSharedBytes: 200 << 10 };
  assert.match(complaintsOf(huge, a100).join("\n"), /of shared memory; a block has 166912/);
  const slow = { ...h200, neededBytes: 1 << 20 };
  assert.match(complaintsOf(linear, slow).join("\n"), /163840 bytes under way, 1048576 are needed/);
});

Deno.test("kernel table: a row a kernel, a column a target", () => {
  const kernels = parsePtxas(log);
  const text = tableOf(new Map([[h200, kernels], [l40s, kernels]]));
  assert.match(
    text,
    /\| `linear_add_bf16` \| 58, 108 KiB x 2, 160 KiB \| 58, 76 KiB x 1, 48 KiB \|/,
  );
  assert.match(text, /`decode_attention_f16_128` \| 163 \(8 B spilled\), 111 KiB x 2, 128 KiB/);
});

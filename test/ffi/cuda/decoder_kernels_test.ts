/** The kernels of a decoder against float64, on the software device and on a GPU where there is one. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCuda } from "../../../ffi/cuda/open.ts";
import type { ElementType, HeadShape } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { OpenOptions } from "../../../ffi/library.ts";
import { isLongRun } from "../../long.ts";
import { configure, deviceTest, directory, freshBench } from "../software_device/device.ts";
import { takeRaces } from "../software_device/races.ts";
import {
  checkHeads,
  checkLargest,
  checkLinear,
  checkRows,
  float32Error,
  roundings,
} from "./decoder_checks.ts";
import {
  type AttentionCase,
  DecoderBench,
  elementTypes,
  errorOf,
  randomValues,
  runAttention,
} from "./decoder_bench.ts";

interface Place {
  readonly name: string;
  readonly unavailable: string | null;
  open(): Cuda;
  readonly options: OpenOptions;
}

const places: readonly Place[] = [
  {
    name: "the software device",
    unavailable: directory === null ? "no C++ compiler to build it" : null,
    open: () => freshBench("progress=20").cuda,
    options: { from: directory ?? undefined },
  },
  { name: "this host's device", unavailable: noDevice(), open: openHost, options: {} },
];

function openHost(): Cuda {
  const cuda = openCuda();
  cuda.setDevice(0);
  return cuda;
}

function noDevice(): string | null {
  try {
    return openCuda().deviceCount() > 0 ? null : "no GPU";
  } catch {
    return "no GPU";
  }
}

type Open = (type: ElementType, shape?: HeadShape, multiprocessors?: number) => DecoderBench;

for (const { name, unavailable, open, options } of places) {
  const test = (what: string, run: (open: Open) => void) =>
    Deno.test({
      name: `decoder kernels on ${name}: ${what}` +
        (unavailable === null ? "" : ` (skipped: ${unavailable})`),
      ignore: unavailable !== null,
      fn() {
        const cuda = open();
        const opened: DecoderBench[] = [];
        run((type, shape, multiprocessors) => {
          const bench = new DecoderBench(cuda, type, shape, multiprocessors, options);
          opened.push(bench);
          return bench;
        });
        opened.forEach((bench) => bench.close());
      },
    });

  test("a row of a linear layer has the same bits in every batch", (open) => {
    for (const type of elementTypes) {
      for (const [outputs, inputs] of [[40, 112], [33, 16], [32, 520]]) {
        checkLinear(open(type), outputs, inputs);
      }
    }
  });

  test("norms, embeddings, activations", (open) => {
    for (const type of elementTypes) checkRows(open(type));
  });

  test("the largest logit, the lowest of equals, and rows without one", (open) => {
    checkLargest(open("float32"));
  });

  test("head norms and rotations", (open) => {
    for (const type of elementTypes) checkHeads(open(type, { heads: 3, kvHeads: 1, headDim: 96 }));
  });

  for (const given of attentionCases()) {
    const { heads, kvHeads, headDim } = given.shape;
    const window = given.window > 0 ? `, window of ${given.window}` : "";
    test(
      `attention of ${heads} heads of ${headDim} to ${kvHeads}, blocks of ${
        1 << given.blockShift
      }` +
        `${window}: parts together and apart`,
      (open) => {
        for (const type of given.types) {
          const together = runAttention(open(type, given.shape, 0), given, 5);
          const error = errorOf(together.found, together.truth);
          assert.ok(error <= float32Error + roundings[type], `${type}: error ${error}`);
          const apart = runAttention(open(type, given.shape, 1000), given, 5);
          assert.deepEqual(apart.found, together.found, `${type}: parts apart`);
          const alone = given.rows.slice(-1);
          const last = runAttention(open(type, given.shape, 0), { ...given, rows: alone }, 5);
          assert.deepEqual(last.found, together.found.slice(-last.found.length), `${type}: alone`);
        }
      },
    );
  }
}

function attentionCases(): (AttentionCase & { readonly types: readonly ElementType[] })[] {
  const rowsAt = (...positions: number[]) =>
    positions.map((position) => ({ sequence: 0, position }));
  return [
    {
      ...{ types: elementTypes, shape: { heads: 8, kvHeads: 1, headDim: 64 } },
      ...{ blockShift: 4, window: 0, lengths: [300] },
      rows: rowsAt(0, 63, 64, 255, 256, 299),
    },
    {
      ...{ types: ["bfloat16"], shape: { heads: 6, kvHeads: 2, headDim: 128 } },
      ...{ blockShift: 5, window: 40, lengths: [290, 70] },
      rows: [{ sequence: 1, position: 69 }, ...rowsAt(30, 289)],
    },
    {
      ...{ types: ["float16"], shape: { heads: 2, kvHeads: 2, headDim: 96 } },
      ...{ blockShift: 3, window: 0, lengths: [20, 520] },
      rows: [{ sequence: 1, position: 519 }, { sequence: 0, position: 19 }],
    },
  ];
}

deviceTest("decoder kernels have no race", "kernels=checked", ({ cuda }) => {
  const options = { from: directory! };
  for (let seed = 1; seed <= (isLongRun ? 10 : 1); seed++) {
    configure(`seed=${seed}`);
    for (const multiprocessors of [0, 1000]) {
      const shape = { heads: 2, kvHeads: 1, headDim: 16 };
      const bench = new DecoderBench(cuda, "bfloat16", shape, multiprocessors, options);
      const row = { sequence: 0, position: 269 };
      const lengths = [270];
      runAttention(bench, { shape, blockShift: 4, window: 20, lengths, rows: [row] }, seed);
      bench.close();
    }
    const bench = new DecoderBench(cuda, "bfloat16", undefined, 0, options);
    const inputs = 1040, outputs = 33; // each warp's ring wraps, the last chunk is half a chunk
    const x = bench.narrow(randomValues(1, 9 * inputs, "bfloat16"));
    const weights = bench.narrow(randomValues(2, outputs * inputs, "bfloat16"));
    for (const rows of [1, 9]) bench.linear({ weights, bias: 0n, outputs, inputs }, x, rows);
    checkRows(bench);
    const logits = bench.upload(randomValues(3, 2 * 300, "float32"));
    bench.kernels.largestLogit(logits, bench.room(8), 2, 300);
    bench.close();
  }
  assert.deepEqual(takeRaces("checked"), []);
});

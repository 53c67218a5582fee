/** The kernels of a decoder against float64, on the software device and on a GPU where there is one. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCuda } from "../../../ffi/cuda/open.ts";
import {
  type ElementType,
  fastPaths,
  type HeadShape,
  type KernelDevice,
  type KernelPaths,
  type NarrowFormats,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { OpenOptions } from "../../../ffi/library.ts";
import { isLongRun } from "../../long.ts";
import { configure, deviceTest, directory, freshBench } from "../software_device/device.ts";
import { takeRaces } from "../software_device/races.ts";
import {
  checkAttention,
  checkHeads,
  checkLargest,
  checkLayer,
  checkLinear,
  checkNarrowCache,
  checkParts,
  checkRows,
  narrowFormats,
  plainPaths,
  unfusedPaths,
} from "./decoder_checks.ts";
import { checkPoisonedCache, checkPoisonedWeights } from "./poison_checks.ts";
import {
  type AttentionCase,
  DecoderBench,
  elementTypes,
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

type Open = (
  type: ElementType,
  shape?: HeadShape,
  multiprocessors?: number,
  paths?: KernelPaths,
  formats?: NarrowFormats,
) => DecoderBench;

for (const { name, unavailable, open, options } of places) {
  /** @param run is given a function that opens a bench, and one that closes all of them */
  const test = (what: string, run: (open: Open, close: () => void) => void) =>
    Deno.test({
      name: `decoder kernels on ${name}: ${what}` +
        (unavailable === null ? "" : ` (skipped: ${unavailable})`),
      ignore: unavailable !== null,
      fn() {
        const cuda = open();
        const opened: DecoderBench[] = [];
        const close = () => opened.splice(0).forEach((bench) => bench.close());
        run((type, shape, multiprocessors, paths, formats) => {
          const bench = new DecoderBench(
            ...[cuda, type, shape, multiprocessors, paths, options, {}, formats] as const,
          );
          opened.push(bench);
          return bench;
        }, close);
        close();
      },
    });

  test("a row of a linear layer has the same bits in every batch", (open) => {
    for (const type of elementTypes) {
      for (const [outputs, inputs] of [[40, 112], [33, 16], [32, 520]]) {
        checkLinear(open(type), outputs, inputs);
        if (type !== "float32") {
          checkLinear(open(type, undefined, 0, plainPaths), outputs, inputs);
        }
      }
      // Tiles of 128 rows; rings of the kernel for few rows that run on across tiles.
      if (type !== "float32") checkLinear(open(type), 136, 1160, 70);
    }
  });

  test("norms, embeddings, activations", (open) => {
    for (const type of elementTypes) checkRows(open(type));
  });

  test("rows of which devices have parts", (open) => checkParts(open("float32")));

  test("the largest logit, the lowest of equals, and rows without one", (open) => {
    checkLargest(open("float32"));
  });

  test("head norms and rotations", (open) => {
    for (const type of elementTypes) checkHeads(open(type, { heads: 3, kvHeads: 1, headDim: 96 }));
  });

  test("a decode layer in five kernels has the bits of one kernel for each operation", (open) => {
    for (const type of ["bfloat16", "float16"] as const) {
      for (const [shape, lengths, multiprocessors] of layerCases) {
        const other = open(type, shape, multiprocessors, unfusedPaths);
        checkLayer(open(type, shape, multiprocessors), other, lengths);
      }
    }
  });

  test("a cache of 8 bits rounds to the nearest number, and gives back each", (open) => {
    for (const type of elementTypes) {
      for (const paths of [fastPaths, plainPaths]) {
        checkNarrowCache(open(type, undefined, 0, paths, { cache: "float8_e4m3" }));
      }
    }
  });

  test("NaN in a cache reaches what sees it, and nothing else", (open, close) => {
    const shape = { heads: 6, kvHeads: 2, headDim: 16 };
    for (const [type, paths, cache, multiprocessors] of poisonedCaches) {
      checkPoisonedCache(open(type, shape, multiprocessors, paths, cache ? { cache } : {}));
      close();
    }
  });

  test("NaN and infinity in weights of 8 bits spoil their own output alone", (open) => {
    for (const type of ["bfloat16", ...isLongRun ? ["float16"] as const : []] as const) {
      for (const paths of [fastPaths, unfusedPaths, plainPaths]) {
        checkPoisonedWeights(open(type, undefined, 0, paths, narrowFormats));
      }
    }
  });

  test("weights of 8 bits: a row has the same bits in every batch", (open) => {
    for (const type of ["bfloat16", "float16"] as const) {
      for (const paths of [fastPaths, plainPaths]) {
        checkLinear(open(type, undefined, 0, paths, narrowFormats), 33, 528);
      }
      if (type === "bfloat16") {
        checkLinear(open(type, undefined, 0, fastPaths, narrowFormats), 136, 1168, 70);
      }
      const shape = { heads: 3, kvHeads: 3, headDim: 64 };
      const [layer, other] = [fastPaths, unfusedPaths].map((paths) =>
        open(type, shape, 1000, paths, narrowFormats)
      );
      checkLayer(layer, other, [70, 2]);
    }
  });

  for (const [headDim, cases] of shapeCases(unavailable === null && options.from === undefined)) {
    test(
      `attention of every group of heads of ${headDim}, with blocks of 8 to 32`,
      (open, close) => {
        for (const { types: [type], formats, ...given } of cases) {
          checkAttention(
            (multiprocessors) => open(type, given.shape, multiprocessors, fastPaths, formats),
            given,
          );
          close();
        }
      },
    );
  }

  for (const { types, paths, formats, ...given } of attentionCases()) {
    const { heads, kvHeads, headDim } = given.shape;
    const window = given.window > 0 ? `, window of ${given.window}` : "";
    const how = [paths === plainPaths ? ", plain" : "", formats ? ", 8 bits" : ""].join("");
    test(
      `attention of ${heads} heads of ${headDim} to ${kvHeads}, blocks of ${
        1 << given.blockShift
      }${window}${how}: alone, decoded, parts apart`,
      (open) => {
        for (const type of types) {
          checkAttention(
            (multiprocessors) => open(type, given.shape, multiprocessors, paths, formats),
            given,
          );
        }
      },
    );
  }
}

/** Types, paths, caches, and whether the parts of a context are apart (many multiprocessors) or together. */
const poisonedCaches = ([
  ["bfloat16", fastPaths, "float8_e4m3", 0],
  ["bfloat16", fastPaths, undefined, 1000],
  ["bfloat16", plainPaths, "float8_e4m3", 1000],
  ["bfloat16", fastPaths, undefined, 0],
  ["bfloat16", fastPaths, "float8_e4m3", 1000],
  ["float16", fastPaths, "float8_e4m3", 0],
  ["float16", plainPaths, undefined, 0],
  ["float32", plainPaths, undefined, 0],
  ["float32", plainPaths, "float8_e4m3", 1000],
] as const).slice(0, isLongRun ? undefined : 3);

const layerCases = [
  [{ heads: 8, kvHeads: 1, headDim: 16 }, [1, 70, 300], 0],
  [{ heads: 3, kvHeads: 3, headDim: 64 }, [70], 1000],
] as const;

interface AttentionTest extends AttentionCase {
  readonly types: readonly ElementType[];
  readonly paths?: KernelPaths;
  readonly formats?: NarrowFormats;
}

function rowsUpTo(sequence: number, length: number, count: number) {
  return Array.from({ length: count }, (_, i) => ({ sequence, position: length - count + i }));
}

/**
 * Cases by head size: groups of 1 to 8 heads, block sizes, windows and types in turn; in a long run each with each.
 * @param isGpu each group with each block size
 */
function shapeCases(isGpu: boolean): Map<number, AttentionTest[]> {
  const cases = new Map<number, AttentionTest[]>([[64, []], [96, []], [128, []]]);
  let count = 0;
  for (const group of [1, 2, 3, 4, 5, 6, 7, 8]) {
    for (const [headDim, ofSize] of cases) {
      for (const blockShift of [3, 4, 5]) {
        for (const window of [0, 40]) {
          for (const type of ["bfloat16", "float16"] as const) {
            for (const formats of [undefined, narrowFormats]) {
              const i = count++;
              // 7 has no factor in common with the numbers of choices.
              const isChosen = isLongRun || i % (isGpu ? 7 : 35) === 0;
              if (!isChosen) continue;
              ofSize.push({
                ...{ types: [type], formats, blockShift, window, lengths: [70, 5] },
                shape: { heads: 2 * group, kvHeads: 2, headDim },
                rows: [...rowsUpTo(0, 70, 2), ...rowsUpTo(1, 5, 1)],
              });
            }
          }
        }
      }
    }
  }
  return cases;
}

function attentionCases(): AttentionTest[] {
  const large = {
    ...{ shape: { heads: 8, kvHeads: 1, headDim: 64 }, blockShift: 4, window: 0 },
    ...{ lengths: [300], rows: rowsUpTo(0, 300, 9) },
  };
  return [
    { types: elementTypes, ...large },
    { types: ["bfloat16"], paths: plainPaths, ...large, rows: large.rows.slice(-3) },
    { types: ["bfloat16"], formats: narrowFormats, ...large },
    {
      ...{ types: ["float16"], formats: narrowFormats },
      ...{ shape: { heads: 6, kvHeads: 2, headDim: 96 }, blockShift: 3, window: 40 },
      ...{ lengths: [290, 70], rows: [...rowsUpTo(0, 290, 2), ...rowsUpTo(1, 70, 30)] },
    },
    {
      ...{ types: ["float32"], paths: plainPaths, formats: { cache: "float8_e4m3" } },
      ...{ ...large, rows: large.rows.slice(-2) },
    },
    {
      ...{ types: ["bfloat16"], shape: { heads: 6, kvHeads: 2, headDim: 128 } },
      ...{ blockShift: 5, window: 40, lengths: [290, 70] },
      rows: [...rowsUpTo(0, 290, 2), ...rowsUpTo(1, 70, 30)],
    },
    {
      ...{ types: ["float16"], shape: { heads: 14, kvHeads: 2, headDim: 96 } },
      ...{ blockShift: 3, window: 0, lengths: [20, 520] },
      rows: [...rowsUpTo(0, 20, 20), ...rowsUpTo(1, 520, 1)],
    },
  ];
}

deviceTest(
  "a decode layer on a device with less shared memory and no programmatic launches",
  "",
  ({ cuda }) => {
    const shape = { heads: 2, kvHeads: 1, headDim: 128 }, options = { from: directory! };
    const open = (paths: KernelPaths, device: Partial<KernelDevice>) =>
      new DecoderBench(cuda, "bfloat16", shape, 2, paths, options, device);
    const bench = open(fastPaths, {
      computeCapability: [8, 9],
      sharedMemoryPerBlockBytes: 99 << 10,
    });
    const other = open(unfusedPaths, {}), native = open(fastPaths, {});
    assert.deepEqual([bench, other, native].map(({ kernels }) => kernels.isProgrammatic), [
      ...[false, false, true],
    ]);
    checkLayer(bench, other, [130]);
    for (const one of [bench, other, native]) one.close();
  },
);

const waysToRun = [
  ...[[undefined, undefined], [plainPaths, undefined], [undefined, narrowFormats]] as const,
  ...isLongRun ? [[plainPaths, narrowFormats] as const] : [],
];

deviceTest("decoder kernels have no race", "kernels=checked", ({ cuda }) => {
  const options = { from: directory! };
  for (let seed = 1; seed <= (isLongRun ? 10 : 1); seed++) {
    configure(`seed=${seed}`);
    const shape = { heads: 2, kvHeads: 1, headDim: 16 };
    const open = (multiprocessors: number, paths?: KernelPaths, formats?: NarrowFormats) =>
      new DecoderBench(
        ...[cuda, "bfloat16", shape, multiprocessors, paths, options, {}, formats] as const,
      );
    for (const [paths, formats] of waysToRun) {
      for (const multiprocessors of [0, 1000]) {
        const bench = open(multiprocessors, paths, formats);
        const given = { shape, blockShift: 4, window: 200, lengths: [270] };
        const rows = [{ sequence: 0, position: 269 }];
        if (multiprocessors === 0) runAttention(bench, { ...given, rows }, seed);
        runAttention(bench, { ...given, rows }, seed, "decode");
        bench.close();
      }
    }
    const inputs = 1040, outputs = 33; // each warp's ring wraps, the last chunk is half a chunk
    for (const [paths, formats] of waysToRun) {
      const bench = open(0, paths, formats);
      const x = bench.narrow(randomValues(1, 9 * inputs, "bfloat16"));
      const random = randomValues(2, outputs * inputs, "bfloat16");
      const { weights, scales } = bench.weights(random, outputs);
      const layer = { weights, scales, bias: 0n, outputs, inputs };
      for (const rows of [1, 9]) bench.linear(layer, x, rows);
      checkRows(bench);
      bench.close();
    }
    // Launched programmatically, one behind the other.
    for (const formats of [{}, narrowFormats]) {
      const bench = open(1, undefined, formats), other = open(1, unfusedPaths, formats);
      checkLayer(bench, other, [70]);
      bench.close();
      other.close();
    }
    const bench = open(1);
    const logits = bench.upload(randomValues(3, 2 * 300, "float32"));
    bench.kernels.largestLogit(logits, bench.room(8), 2, 300);
    bench.close();
  }
  assert.deepEqual(takeRaces("checked"), []);
});

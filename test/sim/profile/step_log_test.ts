import assert from "node:assert/strict";
import { UsageError } from "../../../src/core/errors.ts";
import { readStepLog, type StepLog } from "../../../src/sim/profile/step_log.ts";
import { stepsCsv } from "../../../src/sim/profile/steps_csv.ts";

const header = "timestamp,instance_id,step_id,gpu_cache_usage,num_available_gpu_blocks," +
  "instance_load,inference_type,bs,profiling_data,seq_lens";

async function read(content: string | Uint8Array, suffix = ".csv"): Promise<StepLog> {
  const path = await Deno.makeTempFile({ suffix });
  try {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await Deno.writeFile(path, bytes);
    return readStepLog(path);
  } finally {
    await Deno.remove(path);
  }
}

const rows = [
  `10.00,a,1,0.1,88,-inf,prefill,40,"('prefill', 1, 40, 30.5)","[40]"`,
  `10.10,a,2,0.1,88,3,decode,2,"('decode', 2, 80, 8)","[40, 40]"`,
  `10.11,a,2,0.1,88,3,decode,2,"('decode', 2, 80, 8)","[40, 40]"`, // the same step again
  `10.11,b,2,0.5,48,3,decode,1,"('decode', 1, 9, 7)","[9]"`,
  `10.20,a,12,0.2,78,3,decode,2,"('decode', 2, 100, 10)","[50, 50]"`,
  `10.30,a,13,0.0,98,0,idle,0,"('idle', 0, 0, 0)","[]"`,
  `10.31,a,15,0.0,98,3,decode,2,"('decode', 2, 100, 10)","[50, 50]"`, // after a pause without work
];

Deno.test("steps, each once; pauses; blocks", async () => {
  const { steps, pausesMs, numBlocks } = await read([header, ...rows, ""].join("\n"));
  assert.deepEqual(steps, [
    { kind: "prefill", sequences: 1, tokens: 40, latencyMs: 30.5 },
    { kind: "decode", sequences: 2, tokens: 80, latencyMs: 8 },
    { kind: "decode", sequences: 1, tokens: 9, latencyMs: 7 },
    { kind: "decode", sequences: 2, tokens: 100, latencyMs: 10 },
    { kind: "decode", sequences: 2, tokens: 100, latencyMs: 10 },
  ]);
  // Ten steps in 100 ms, of 9 ms each.
  assert.equal(pausesMs.length, 1);
  assert.ok(Math.abs(pausesMs[0] - 1) < 1e-6, `${pausesMs}`);
  assert.equal(numBlocks, 100);
});

Deno.test("a step that is told again while the next one runs hides not that one", async () => {
  const { steps } = await read([
    header,
    `10.00,a,1,0.1,88,3,decode,1,"('decode', 1, 50, 7.5)","[50]"`,
    `10.02,a,2,0.1,88,3,decode,1,"('decode', 1, 50, 7.5)","[50]"`, // step 2 runs
    `10.04,a,2,0.1,88,3,decode,1,"('decode', 1, 50, 7.5)","[50]"`,
    `10.09,a,2,0.1,88,3,prefill,231,"('prefill', 1, 231, 66.9)","[232]"`,
    "",
  ].join("\n"));
  assert.deepEqual(steps.map(({ kind, latencyMs }) => [kind, latencyMs]), [
    ["decode", 7.5],
    ["prefill", 66.9],
  ]);
});

Deno.test("what profile run writes is read again", async () => {
  const steps = [
    { kind: "prefill" as const, sequences: 1, tokens: 64, latencyMs: 12.25 },
    { kind: "decode" as const, sequences: 4, tokens: 512, latencyMs: 3.5 },
  ];
  const log = await read(stepsCsv(steps));
  assert.deepEqual(log, { steps, pausesMs: [], numBlocks: null });
});

for (
  const [what, content, message] of [
    ["an empty file", "", /is empty/],
    [
      "a CSV of another version",
      "timestamp,instance_id,latency\n1,a,2",
      /lacks the columns step_id, /,
    ],
    ["a row that is too short", `${header}\n1,a,2`, /row 2: it has no cell for gpu_cache_usage/],
    [
      "a cell that is no number",
      [header, rows[0].replace("10.00", "soon")].join("\n"),
      /row 2: timestamp is "soon", expected a number/,
    ],
    [
      "profiling data of another form",
      [header, rows[0].replace("('prefill', 1, 40, 30.5)", "30.5")].join("\n"),
      /row 2: profiling_data is 30\.5, expected \('prefill' or 'decode'/,
    ],
  ] as const
) {
  Deno.test(`refused: ${what}`, async () => {
    await assert.rejects(read(content), (error: Error) => {
      assert.ok(error instanceof UsageError, `${error.stack}`);
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("a pickle is refused with the command that converts it", async () => {
  for (const suffix of [".pkl", ".csv"]) {
    await assert.rejects(read(new Uint8Array([0x80, 4, 1]), suffix), (error: Error) => {
      assert.match(error.message, /is a pickle of Llumnix.*llumnix profile fit LOG_instance\.csv/s);
      assert.match(error.message, /python3 - '.*' > steps\.csv <<'END'\nimport cloudpickle/);
      return true;
    });
  }
});

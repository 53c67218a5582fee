import assert from "node:assert/strict";
import type { DatasetOptions } from "../../../src/bench/datasets/dataset.ts";
import { datasets } from "../../../src/bench/datasets/datasets.ts";
import { PromptMaker } from "../../../src/bench/datasets/prompt_maker.ts";
import { estimate, type TokenCounter } from "../../../src/bench/token_counter.ts";
import { UsageError } from "../../../src/core/errors.ts";
import { Random } from "../../../src/core/random.ts";

/** A token for each byte, and one at the begin. */
const bytes: TokenCounter = {
  name: "bytes",
  isExact: true,
  count: (text) => Promise.resolve(1 + text.length),
};

async function optionsFor(
  path: string | null,
  more: Partial<DatasetOptions> = {},
): Promise<DatasetOptions & { notices: string[] }> {
  const counter = more.counter ?? bytes;
  const notices: string[] = [];
  return {
    ...{ path, numPrompts: 3, seed: 1, oversample: true, shuffle: false, keepsTimes: false },
    outputTokens: null,
    random: { inputTokens: 40, outputTokens: 10, rangeRatio: 0.5, prefixTokens: 0 },
    counter,
    prompts: await PromptMaker.create(counter),
    onNotice: (text) => notices.push(text),
    notices,
    ...more,
  };
}

async function load(
  name: string,
  suffix: string,
  text: string,
  more: Partial<DatasetOptions> = {},
) {
  const path = await Deno.makeTempFile({ suffix });
  try {
    await Deno.writeTextFile(path, text);
    const options = await optionsFor(path, more);
    return { requests: await datasets[name].load(options), notices: options.notices };
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("texts have exactly the tokens that were asked for", async () => {
  const prompts = await PromptMaker.create(bytes);
  const random = new Random(1);
  for (let tokens = 6; tokens < 200; tokens++) {
    assert.equal(await bytes.count(prompts.text(tokens, random)), tokens);
  }
  const words = await PromptMaker.create(estimate);
  assert.equal(words.text(50, random).split(" ").length, 50);
});

Deno.test("random: lengths within the range, the same for the same seed, a common prefix", async () => {
  const options = await optionsFor(null, { numPrompts: 50 });
  const requests = await datasets.random.load(options);
  for (const { prompt, promptTokens, outputTokens } of requests) {
    assert.equal(await bytes.count(prompt), promptTokens);
    assert.ok(promptTokens >= 20 && promptTokens <= 60, `${promptTokens}`);
    assert.ok(outputTokens >= 5 && outputTokens <= 15, `${outputTokens}`);
  }
  assert.deepEqual(await datasets.random.load(options), requests);
  assert.notDeepEqual(await datasets.random.load({ ...options, seed: 2 }), requests);
  const random = { ...options.random, prefixTokens: 30 };
  const [first, second] = await datasets.random.load({ ...options, random });
  assert.equal(first.prompt.slice(0, 29), second.prompt.slice(0, 29));
  assert.equal(await bytes.count(first.prompt), first.promptTokens);
});

const turn = (value: string) => ({ value });

Deno.test("sharegpt: questions and the lengths of their answers, within vLLM's limits", async () => {
  const rows = [
    { conversations: [turn("question"), turn("an answer")] },
    { conversations: [turn("no"), turn("too short a question")] },
    { conversations: [turn("alone")] },
    { conversations: [turn("q".repeat(2000)), turn("too long a question")] },
  ];
  const { requests, notices } = await load("sharegpt", ".json", JSON.stringify(rows), {
    numPrompts: 2,
  });
  assert.deepEqual(
    requests.map(({ prompt, outputTokens }) => [prompt, outputTokens]),
    [["question", 10], ["question", 10]],
  );
  assert.match(notices[0], /has 1 requests, fewer than --num-prompts 2: some are sent more than/);
});

Deno.test("burstgpt: the rows of GPT-4, with their times", async () => {
  const text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" +
    "5,GPT-4,20,7,27,API log\n6,ChatGPT,20,7,27,API log\n7,GPT-4,30,9,39,API log\n" +
    "8,GPT-4,30,0,30,API log\n";
  const { requests, notices } = await load("burstgpt", ".csv", text, { keepsTimes: true });
  assert.deepEqual(
    requests.map(({ promptTokens, outputTokens, recordedMs }) => [
      promptTokens,
      outputTokens,
      recordedMs,
    ]),
    [[20, 7, 0], [30, 9, 2000]],
  );
  assert.equal(await bytes.count(requests[0].prompt), 20);
  assert.ok(notices.some((notice) => /1 row left out \(requests of other models/.test(notice)));
});

Deno.test("custom: prompts, with output length and priority of the row", async () => {
  const text = '{"prompt":"one"}\n\n{"prompt":"two","output_tokens":5,"priority":"high"}\n';
  const { requests } = await load("custom", ".jsonl", text, { numPrompts: 2, outputTokens: 9 });
  assert.deepEqual(
    requests.map(({ prompt, outputTokens, priority }) => [prompt, outputTokens, priority]),
    [["one", 9, null], ["two", 5, "high"]],
  );
});

const mooncakeRow = (timestamp: number, input_length: number, hash_ids: number[]) =>
  JSON.stringify({ timestamp, input_length, output_length: 4, hash_ids });

Deno.test("mooncake: equal hashes are equal text, times are kept", async () => {
  const text = [mooncakeRow(100, 600, [7, 8]), mooncakeRow(150, 700, [7, 9])].join("\n");
  const { requests: [first, second] } = await load("mooncake", ".jsonl", text, {
    ...{ numPrompts: 2, keepsTimes: true },
  });
  assert.deepEqual([first.recordedMs, second.recordedMs], [0, 50]);
  assert.equal(first.prompt.slice(0, 511), second.prompt.slice(0, 511));
  assert.notEqual(first.prompt.slice(512, 590), second.prompt.slice(512, 590));
  assert.equal(await bytes.count(first.prompt), 600);
  assert.equal(await bytes.count(second.prompt), 700);
});

for (
  const [name, suffix, text, message] of [
    ["custom", ".jsonl", '{"prompt":"a"}\n{"prompt":7}', /row 2: prompt is 7, expected text/],
    ["custom", ".jsonl", '{"prompt":"a"\n', /row 1: it is not JSON/],
    ["custom", ".jsonl", "\n", /has no requests/],
    ["custom", ".txt", "a", /is not JSONL/],
    ["sharegpt", ".json", '[{"conversations":[]},{"c":1}]', /row 2: conversations is missing/],
    ["burstgpt", ".csv", "a,b\n1,2", /row 1: a header with the columns Timestamp/],
    [
      "burstgpt",
      ".csv",
      "Timestamp,Model,Request tokens,Response tokens\n1,GPT-4,x,2",
      /row 2: Request tokens is "x", expected a number of tokens/,
    ],
    ["mooncake", ".jsonl", mooncakeRow(0, 600, [1]), /row 1: hash_ids has 1 entries, expected 2/],
    [
      "mooncake",
      ".jsonl",
      '{"timestamp":-1}',
      /row 1: timestamp is -1, expected a number of milli/,
    ],
    [
      "mooncake",
      ".jsonl",
      [mooncakeRow(9, 5, [1]), mooncakeRow(8, 5, [1])].join("\n"),
      /row 2: its timestamp is before that of the row above/,
    ],
  ] as const
) {
  Deno.test(`refused: ${name} ${text.slice(0, 40).replaceAll("\n", " ")}`, async () => {
    await assert.rejects(load(name, suffix, text), (error: Error) => {
      assert.ok(error instanceof UsageError, `${error.stack}`);
      assert.match(error.message, message);
      return true;
    });
  });
}

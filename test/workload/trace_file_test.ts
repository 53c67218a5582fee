import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { replayWorkload } from "../../src/workload/replay.ts";
import { estimateTokens, readTrace } from "../../src/workload/trace_file.ts";

async function withTrace(
  suffix: string,
  content: string | Uint8Array,
  use: (path: string) => void,
): Promise<void> {
  const path = await Deno.makeTempFile({ suffix });
  try {
    await Deno.writeFile(path, typeof content === "string" ? encode(content) : content);
    use(path);
  } finally {
    await Deno.remove(path);
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function refuses(name: string, suffix: string, content: string, problem: string): void {
  Deno.test(`refused: ${name}`, () =>
    withTrace(suffix, content, (path) => {
      assert.throws(() => [...readTrace(path)], (error: Error) => {
        assert.equal(error.name, "UsageError");
        assert.ok(error.message.startsWith(`The trace ${path} ${problem}`), error.message);
        return true;
      });
    }));
}

const line = '{"time": 1, "prompt_tokens": 5, "output_tokens": 6}';

Deno.test("JSONL: rows with and without priority, empty lines, times from the first row", () => {
  const text = '{"time": 2.5, "prompt_tokens": 10, "output_tokens": 3}\r\n\n' +
    '{"time": 4, "prompt_tokens": 1, "output_tokens": 1, "priority": "high"}';
  return withTrace(".jsonl", text, (path) => {
    assert.deepEqual([...readTrace(path)], [
      { arrivalMs: 0, promptTokens: 10, outputTokens: 3, priority: null },
      { arrivalMs: 1500, promptTokens: 1, outputTokens: 1, priority: "high" },
    ]);
  });
});

refuses(
  "a line that is not JSON",
  ".jsonl",
  `${line}\n\n{"time": `,
  "is wrong in row 3: it is not",
);
refuses(
  "a field of the wrong kind",
  ".jsonl",
  `${line}\n{"time": 1, "prompt_tokens": 0, "output_tokens": 6}`,
  "is wrong in row 2: prompt_tokens is 0, expected a number of tokens, 1 or more.",
);
refuses(
  "a field that is missing",
  ".jsonl",
  `${line}\n{"time": 1, "prompt_tokens": 5}`,
  "is wrong in row 2: output_tokens is missing, expected a number of tokens, 1 or more.",
);
refuses(
  "a priority that there is not",
  ".jsonl",
  '{"time": 1, "prompt_tokens": 5, "output_tokens": 6, "priority": "low"}',
  'is wrong in row 1: priority is "low", expected high or normal.',
);
refuses("a row that is no object", ".jsonl", "5", "is wrong in row 1: it is not a JSON object.");
refuses(
  "an unknown field",
  ".jsonl",
  '{"time": 1, "prompt_tokens": 2, "output_tokens": 6, "prio": 1}',
  "is wrong in row 1: there is no field prio, expected time, prompt_tokens, output_tokens, priority.",
);
refuses(
  "times that go back",
  ".jsonl",
  `${line}\n${line.replace("1", "0.5")}`,
  "is wrong in row 2: its time is before the row above, expected rows in the order of time",
);
refuses(
  "a gap of more than 30 days",
  ".jsonl",
  `${line}\n${line.replace("1", "2592001")}\n${line.replace("1", "1e12")}`,
  "is wrong in row 3: its time is 999997407999 s after the row above, expected 2592000 s (30 days)",
);
refuses("nothing", ".jsonl", "\n\n", "has no requests.");
refuses("an unknown format", ".txt", line, "has an unknown format: expected a name that ends in");

const header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";

Deno.test("BurstGPT: columns by name, failed requests left out", () => {
  const rows = "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n" +
    '118,"GPT-4",417,276,693,"Conversation log"\n';
  return withTrace(".csv", header + rows, (path) => {
    const reasons: string[] = [];
    const onLeftOut = (why: string) => reasons.push(why);
    assert.deepEqual([...readTrace(path, { onLeftOut })], [
      { arrivalMs: 0, promptTokens: 472, outputTokens: 18, priority: null },
      { arrivalMs: 113_000, promptTokens: 417, outputTokens: 276, priority: null },
    ]);
    assert.deepEqual(reasons, ["failed requests, of 0 request or response tokens"]);
  });
});

refuses(
  "nothing but failed requests",
  ".csv",
  `${header}5,ChatGPT,472,0,472,log\n6,ChatGPT,9,0,9,log\n`,
  "has no requests: 2 rows left out (failed requests, of 0 request or response tokens).",
);
refuses(
  "a CSV with other columns",
  ".csv",
  "time,tokens\n1,2\n",
  "is wrong in row 1: a header with the columns Timestamp, Request tokens, Response tokens is",
);
refuses(
  "a cell that is no number",
  ".csv",
  `${header}5,ChatGPT,472,18,490,log\n6,ChatGPT,many,18,490,log\n`,
  'is wrong in row 3: Request tokens is "many", expected a number of tokens',
);
refuses(
  "a row that is too short",
  ".csv",
  `${header}5,ChatGPT,472\n`,
  'is wrong in row 2: Response tokens is "", expected a number of tokens',
);

/** A ShareGPT file: texts with everything that confuses a reader that looks for brackets. */
function shareGpt(random: Random, count: number) {
  const pieces = ["a", " ", '"', "\\", "]", "}", "[{", ",", "é", "漢字", "\n", "]]"];
  const text = () =>
    Array.from({ length: 1 + random.below(40) }, () => pieces[random.below(pieces.length)]).join(
      "",
    );
  return Array.from({ length: count }, (_, id) => ({
    id: String(id),
    conversations: Array.from(
      { length: random.below(4) },
      (_, i) => ({ from: i % 2 === 0 ? "human" : "gpt", value: text() }),
    ),
  }));
}

Deno.test("ShareGPT: first question and answer of every conversation, however it is written", async () => {
  const random = new Random(4);
  for (const [count, indent] of [[3, 0], [500, 1], [4000, 0]]) {
    const conversations = shareGpt(random, count);
    const expected = conversations.filter(({ conversations }) => conversations.length >= 2).map(
      ({ conversations: [prompt, output] }) => ({
        arrivalMs: null,
        promptTokens: estimateTokens(prompt.value),
        outputTokens: estimateTokens(output.value),
        priority: null,
      }),
    );
    await withTrace(".json", JSON.stringify(conversations, null, indent), (path) => {
      assert.deepEqual([...readTrace(path)], expected);
    });
  }
});

refuses("JSON that is no array", ".json", '{"a": 1}', "is not one JSON array.");
refuses("an array that is cut off", ".json", '[{"conversations": []}, ', "ends within its JSON");
refuses(
  "an entry that is not JSON",
  ".json",
  '[{"conversations": nope}]',
  "is wrong in row 1: it is not JSON",
);
refuses(
  "something after the array",
  ".json",
  '[{"conversations": []}] 1',
  "is not one JSON array.",
);
refuses(
  "an entry of another kind",
  ".json",
  '[{"conversations": []}, {"text": "x"}]',
  "is wrong in row 2: conversations is missing, expected a list of turns.",
);

Deno.test("a trace that is not there is refused", () => {
  assert.throws(() => [...readTrace("/no/such/trace.csv")], {
    name: "UsageError",
    message: /^Cannot read \/no\/such\/trace.csv: /,
  });
});

Deno.test("a replay keeps the trace's times and priorities, or takes others", () => {
  const text = [[0, "high"], [1, "normal"], [3, undefined]].map(([time, priority]) =>
    JSON.stringify({ time, prompt_tokens: 4, output_tokens: 2, priority })
  ).join("\n");
  return withTrace(".jsonl", text, (path) => {
    const replay = (overrides: Partial<Parameters<typeof replayWorkload>[0]> = {}) => [
      ...replayWorkload({
        rows: readTrace(path),
        arrivals: null,
        numRequests: null,
        highPriority: 1,
        seed: 1,
        ...overrides,
      }),
    ];
    assert.deepEqual(replay().map((r) => [r.arrivalMs, r.priority]), [
      [0, "high"],
      [1000, "normal"],
      [3000, "high"],
    ]);
    const uniform = replay({ arrivals: { kind: "uniform", rate: 2 }, numRequests: 2 });
    assert.deepEqual(uniform.map((r) => r.arrivalMs), [500, 1000]);
  });
});

Deno.test("a trace without times needs arrivals", () => {
  const json = JSON.stringify(shareGpt(new Random(1), 50));
  return withTrace(".json", json, (path) => {
    const workload = { rows: readTrace(path), numRequests: null, highPriority: 0, seed: 1 };
    assert.throws(() => [...replayWorkload({ ...workload, arrivals: null })], {
      name: "UsageError",
      message: /^the trace has no times/,
    });
  });
});

import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { EncoderPool } from "../../../src/frontend/encoding/encoder_pool.ts";
import { PromptEncoder } from "../../../src/frontend/encoding/prompt_encoder.ts";
import type { Tokenizer } from "../../../src/frontend/tokenizer.ts";
import { until } from "../../patience.ts";
import { fixtureTokenizer } from "../fixtures.ts";

const words =
  "the quick brown fox said: it's 12 o'clock\n and <|eot_id|> so on, über <|im_end|> 你好 x".split(
    " ",
  );

function randomText(random: Random, length: number): string {
  let text = "";
  while (text.length < length) text += (text && " ") + words[random.below(words.length)];
  return text;
}

/** A tokenizer that notes the length of each segment that it encodes on this thread. */
function counting(tokenizer: Tokenizer) {
  const lengths: number[] = [];
  const segments = Object.create(tokenizer.segments, {
    split: { value: (text: string) => tokenizer.segments.split(text) },
    join: { value: tokenizer.segments.join.bind(tokenizer.segments) },
    encode: {
      value: (segment: Parameters<typeof tokenizer.segments.encode>[0]) => {
        lengths.push(segment.text.length);
        return tokenizer.segments.encode(segment);
      },
    },
  });
  const encoded = () => lengths.reduce((sum, length) => sum + length, 0);
  return { tokenizer: { ...tokenizer, segments }, lengths, encoded };
}

function startPool(tokenizer: Tokenizer, maxWorkers = 2): EncoderPool {
  return new EncoderPool({
    source: tokenizer.source,
    startWorker: () =>
      new Worker(new URL("_encoder_worker.ts", import.meta.url), { type: "module" }),
    maxWorkers,
  });
}

const nextTurn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

/** Waits until a worker has loaded the tokenizer. */
async function untilReady(pool: EncoderPool): Promise<void> {
  pool.start();
  await until(() => pool.isReady, "a worker has loaded the tokenizer");
}

const all = { addSpecialTokens: true, maxTokens: Infinity };

for (const name of ["llama3", "qwen", "llama2", "mistral"] as const) {
  Deno.test(`${name}: with workers and the cache the ids are those of the whole`, async () => {
    const tokenizer = fixtureTokenizer(name);
    using pool = startPool(tokenizer);
    const encoder = new PromptEncoder({ tokenizer, pool, takeTurn: nextTurn });
    await untilReady(pool);
    const random = new Random(3);
    let history = "";
    for (let turn = 0; turn < 6; turn++) {
      history += randomText(random, random.below(20_000));
      const { tokenIds, isComplete } = await encoder.encode(history, all);
      assert.ok(isComplete);
      assert.deepEqual([...tokenIds], tokenizer.encode(history, all));
    }
    assert.ok(pool.isReady, "no worker was used");
    const { tokenIds } = await encoder.encode(history.slice(1), all);
    assert.deepEqual([...tokenIds], tokenizer.encode(history.slice(1), all));
  });
}

Deno.test("a history that is sent again with one more turn costs what is new", async () => {
  const { tokenizer, encoded } = counting(fixtureTokenizer("llama3"));
  const encoder = new PromptEncoder({ tokenizer, pool: null, takeTurn: nextTurn });
  const random = new Random(4);
  const history = randomText(random, 150_000);
  await encoder.encode(history, all);
  const before = encoded();
  assert.ok(before >= 120_000);
  await encoder.encode(history + " and one more turn", all);
  assert.ok(encoded() - before < 5_000, `${encoded() - before} characters were encoded again`);
});

Deno.test("the cache is bounded, and gives up what was used least recently", async () => {
  const { tokenizer, encoded } = counting(fixtureTokenizer("llama3"));
  const cacheBytes = 250_000;
  const encoder = new PromptEncoder({ tokenizer, pool: null, takeTurn: nextTurn, cacheBytes });
  const random = new Random(5);
  const kept = randomText(random, 5_000);
  for (let i = 0; i < 20; i++) {
    await encoder.encode(randomText(random, 12_000), all);
    await encoder.encode(kept, all);
    assert.ok(encoder.cacheBytes <= cacheBytes);
  }
  const before = encoded();
  await encoder.encode(kept, all);
  assert.equal(encoded(), before);
});

Deno.test("encoding stops when there are more tokens than fit", async () => {
  const { tokenizer, encoded } = counting(fixtureTokenizer("llama3"));
  const encoder = new PromptEncoder({ tokenizer, pool: null, takeTurn: nextTurn });
  const text = randomText(new Random(6), 200_000);
  const { tokenIds, isComplete } = await encoder.encode(text, { ...all, maxTokens: 1000 });
  assert.ok(!isComplete && tokenIds.length > 1000);
  assert.ok(encoded() < 10_000);
});

/** One long prompt of words, and one without a place to cut it. */
const longTexts = () => [randomText(new Random(8), 100_000), "a".repeat(200_000)];

Deno.test("long prompts, even one without a space, are encoded by workers alone", async () => {
  const { tokenizer, lengths } = counting(fixtureTokenizer("llama3"));
  using pool = startPool(tokenizer);
  const encoder = new PromptEncoder({ tokenizer, pool, takeTurn: nextTurn });
  await untilReady(pool);
  const texts = longTexts();
  const encoded = await Promise.all(texts.map((text) => encoder.encode(text, all)));
  assert.deepEqual(lengths, [], "lengths of what this thread encoded");
  for (const [i, { tokenIds }] of encoded.entries()) {
    const decoded = tokenizer.decode(tokenIds.slice(1), { skipSpecialTokens: false });
    assert.ok(decoded === texts[i], `prompt ${i}: ${decoded.slice(0, 100)}`);
  }
});

Deno.test("while workers load, this thread encodes short segments, each in a turn that it asked for", async () => {
  const { tokenizer, lengths } = counting(fixtureTokenizer("llama3"));
  using pool = startPool(tokenizer);
  const turns: number[] = [];
  const takeTurn = async (characters: number) => {
    assert.deepEqual(lengths, turns, "nothing is encoded before its turn");
    // The first ten turns come at once: no message of the worker arrives between them.
    if (turns.length >= 10) await nextTurn();
    if (!pool.isReady) turns.push(characters);
  };
  const encoder = new PromptEncoder({ tokenizer, pool, takeTurn });
  const texts = longTexts();
  const ids = await Promise.all(texts.map((text) => encoder.encode(text, all)));
  assert.deepEqual(lengths, turns);
  assert.ok(lengths.length >= 10, `${lengths.length} segments were encoded here`);
  assert.ok(Math.max(...lengths) < 16 * 1024, `a segment of ${Math.max(...lengths)} characters`);
  assert.ok(ids.every(({ isComplete }) => isComplete));
});

Deno.test("a worker that dies costs time, not the request", async () => {
  const tokenizer = fixtureTokenizer("llama3");
  const failures: string[] = [];
  using pool = new EncoderPool({
    source: tokenizer.source,
    startWorker: () =>
      new Worker("data:text/javascript,onmessage=0;throw new Error('no worker')", {
        type: "module",
      }),
    maxWorkers: 2,
    onFailure: (message) => failures.push(message),
  });
  const encoder = new PromptEncoder({ tokenizer, pool, takeTurn: nextTurn });
  const text = "a".repeat(20_000) + randomText(new Random(9), 20_000);
  const { tokenIds } = await encoder.encode(text, all);
  assert.deepEqual([...tokenIds], tokenizer.encode(text, all));
  assert.match(failures[0], /no worker/);
});

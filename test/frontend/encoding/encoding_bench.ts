/**
 * Speed of what handles text on the way in and out: `deno bench -A test/frontend/encoding`. Prints, too, for
 * how long the event loop stood still at most while workers encoded two long prompts.
 */
import { Random } from "../../../src/core/random.ts";
import { EncoderPool } from "../../../src/frontend/encoding/encoder_pool.ts";
import { LongWordEncoder } from "../../../src/frontend/encoding/long_word.ts";
import { PromptEncoder } from "../../../src/frontend/encoding/prompt_encoder.ts";
import { StopChecker, StopStrings } from "../../../src/frontend/stop_checker.ts";
import { fixtureTokenizer, readFixture } from "../fixtures.ts";

const longWord = new LongWordEncoder(readFixture("llama3", "tokenizer.json").model.merges);
const word = "thequickbrownfox".repeat(20_000);
Deno.bench("a word of 320,000 characters", () => void longWord.encode(word));

const stops = new StopStrings(Array.from({ length: 16 }, (_, i) => "a".repeat(1000 + i) + "b"));
const piece = "a".repeat(5_000) + "c";
Deno.bench("100,000 characters against 16 stop strings of 1,000", () => {
  const checker = new StopChecker(stops, false);
  for (let i = 0; i < 20; i++) checker.push(piece, true);
});

const tokenizer = fixtureTokenizer("llama3");
const pool = new EncoderPool({
  source: tokenizer.source,
  startWorker: () => new Worker(new URL("_encoder_worker.ts", import.meta.url), { type: "module" }),
  maxWorkers: 2,
});
const nextTurn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));
let longestMs = 0;

Deno.bench("800,000 characters of words beside 600,000 without a space", async (bench) => {
  const random = new Random(8);
  let words = "";
  while (words.length < 800_000) words += ["the ", "quick ", "fox's ", "12 "][random.below(4)];
  const encoder = new PromptEncoder({ tokenizer, pool, takeTurn: nextTurn });
  pool.start();
  while (!pool.isReady) await nextTurn();
  let lastMs = performance.now();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastMs);
    lastMs = nowMs;
  }, 1);
  bench.start();
  const all = { addSpecialTokens: true, maxTokens: Infinity };
  await Promise.all([words, "a".repeat(600_000)].map((text) => encoder.encode(text, all)));
  bench.end();
  clearInterval(timer);
});

addEventListener("unload", () => {
  console.log(`the event loop stood still for ${longestMs.toFixed(0)} ms at most`);
  pool[Symbol.dispose]();
});

/**
 * A worker with clients that have long prompts tokenised, each one new, one after the other. Making the prompts
 * takes as much time as sending them, and must not disturb the thread that measures.
 */
import { Random } from "../../src/core/random.ts";
import { Client } from "./service.ts";
import { makeWords, wordText } from "./word_model.ts";

export interface LongPromptOrder {
  readonly port: number;
  readonly clients: number;
  /** Of one token each. */
  readonly words: number;
  readonly durationMs: number;
}

/** How many prompts were answered before the time was over. */
export type LongPromptReport = number;

async function send(
  { port, clients, words, durationMs }: LongPromptOrder,
): Promise<LongPromptReport> {
  const vocabulary = makeWords();
  const endMs = performance.now() + durationMs;
  let answered = 0;
  await Promise.all(Array.from({ length: clients }, async (_, i) => {
    const random = new Random(i + 1);
    using client = await Client.connect(port);
    while (performance.now() < endMs) {
      const prompt = wordText(vocabulary, words, random);
      await client.post("/tokenize", { prompt });
      const answer = await client.readBody();
      if (!answer.startsWith('{"count":')) throw new Error(answer.slice(0, 500));
      if (performance.now() < endMs) answered++;
    }
  }));
  return answered;
}

interface WorkerScope {
  postMessage(message: LongPromptReport | "ready"): void;
  onmessage: (event: MessageEvent<LongPromptOrder>) => void;
}

const scope = globalThis as unknown as WorkerScope;
scope.onmessage = async ({ data }) => scope.postMessage(await send(data));
scope.postMessage("ready");

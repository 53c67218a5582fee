/** What every executor has to do, whatever it computes with. */
import assert from "node:assert/strict";
import type { SamplingParams } from "../../src/core/protocol/generate.ts";
import { Random } from "../../src/core/random.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";
import type { Executor, StepInput, StepOutput } from "../../src/executor/executor.ts";

/** Device blocks that the suite uses, and swap blocks that an executor needs for the swap tests. */
export const SUITE_BLOCKS = 96;
export const SUITE_SWAP_BLOCKS = 16;
/** Longest sequence of the suite in tokens, and the smallest vocabulary that it can work with. */
export const SUITE_MODEL_LEN = 96;
export const SUITE_VOCAB_SIZE = 128;

const NUM_TOKENS = 24;

/** A sequence as the suite follows it; blocks are the suite's own choice. */
interface Followed {
  readonly handle: number;
  readonly params: SamplingParams;
  readonly promptTokenIds: readonly number[];
  readonly outputTokenIds: number[];
  blocks: number[];
  isAnnounced: boolean;
}

/** What a step carries besides its batch. */
interface Extras {
  readonly removed?: readonly number[];
  readonly swapOut?: readonly number[];
  readonly swapIn?: readonly number[];
}

function suiteParams(overrides: Partial<SamplingParams>): SamplingParams {
  return {
    ...samplingDefaults,
    maxTokens: NUM_TOKENS,
    temperature: 0,
    seed: 0,
    eosTokenIds: [],
    ignoreEos: true,
    ...overrides,
  };
}

/** Builds steps by hand, on blocks in random order. */
class Driver {
  readonly #executor: Executor;
  readonly #random: Random;
  readonly #freeBlocks: number[];
  #stepId = 0;
  #numHandles = 0;

  constructor(executor: Executor, seed: number) {
    this.#executor = executor;
    this.#random = new Random(seed);
    this.#freeBlocks = Array.from({ length: SUITE_BLOCKS }, (_, i) => i);
  }

  /** Sequence `index` of the suite: always the same prompt and parameters for the same index. */
  follow(index: number, overrides: Partial<SamplingParams> = {}, handle?: number): Followed {
    const random = new Random(1000 + index);
    const length = 1 + (index * 13 + 16) % 50;
    const isSampled = index % 2 === 1;
    return {
      handle: handle ?? this.#numHandles++,
      params: suiteParams({
        seed: 5 + index,
        ...(isSampled && { temperature: 0.8, topP: 0.9, repetitionPenalty: 1.1 }),
        ...(isSampled && { presencePenalty: 0.3 }),
        ...overrides,
      }),
      promptTokenIds: Array.from({ length }, () => random.below(SUITE_VOCAB_SIZE)),
      outputTokenIds: [],
      blocks: [],
      isAnnounced: false,
    };
  }

  takeBlocks(count: number): number[] {
    const free = this.#freeBlocks;
    return Array.from({ length: count }, () => free.splice(this.#random.below(free.length), 1)[0]);
  }

  giveBack(sequence: Followed): void {
    this.#freeBlocks.push(...sequence.blocks);
    sequence.blocks = [];
  }

  async step(
    kind: StepInput["kind"],
    batch: readonly Followed[],
    extras: Extras = {},
  ): Promise<StepOutput> {
    const lengths = batch.map((s) => s.promptTokenIds.length + s.outputTokenIds.length);
    const starts = lengths.map((length) => kind === "prefill" ? 0 : length - 1);
    const output = await this.#submit(kind, batch, extras, starts, lengths);
    for (const [i, sequence] of batch.entries()) sequence.outputTokenIds.push(output.tokenIds[i]);
    return output;
  }

  /** A step that computes the tokens [starts[i], ends[i]) of each sequence. */
  async #submit(
    kind: StepInput["kind"],
    batch: readonly Followed[],
    extras: Extras,
    starts: readonly number[],
    ends: readonly number[],
  ): Promise<StepOutput> {
    const { blockSize } = this.#executor.info.layout;
    const tokens = batch.map((s) => [...s.promptTokenIds, ...s.outputTokenIds]);
    const isPartial = ends.some((end, i) => end < tokens[i].length);
    for (const [i, sequence] of batch.entries()) {
      const needed = Math.ceil(tokens[i].length / blockSize) - sequence.blocks.length;
      if (needed > 0) sequence.blocks.push(...this.takeBlocks(needed));
    }
    const queries = tokens.map((row, i) => row.slice(starts[i], ends[i]));
    const queryStarts = [0];
    for (const query of queries) queryStarts.push(queryStarts.at(-1)! + query.length);
    const maxBlocks = Math.max(...batch.map((sequence) => sequence.blocks.length));
    const blockTables = new Int32Array(batch.length * maxBlocks);
    for (const [i, sequence] of batch.entries()) blockTables.set(sequence.blocks, i * maxBlocks);
    const output = await this.#executor.step({
      stepId: ++this.#stepId,
      kind,
      isPartial,
      removed: extras.removed ?? [],
      added: batch.filter((sequence) => !sequence.isAnnounced).map((sequence) => ({
        handle: sequence.handle,
        params: sequence.params,
        promptTokenIds: sequence.promptTokenIds,
        outputTokenIds: [...sequence.outputTokenIds],
      })),
      swapOut: Int32Array.from(extras.swapOut ?? []),
      swapIn: Int32Array.from(extras.swapIn ?? []),
      handles: Int32Array.from(batch, (sequence) => sequence.handle),
      tokenIds: Int32Array.from(queries.flat()),
      queryStarts: Int32Array.from(queryStarts),
      contextLens: Int32Array.from(ends),
      blockTables,
      maxBlocks,
    });
    assert.equal(output.stepId, this.#stepId);
    assert.equal(output.tokenIds.length, batch.length);
    assert.ok(output.latencyMs >= 0);
    for (const sequence of batch) sequence.isAnnounced = true;
    return output;
  }

  /** Prefills a sequence in pieces of so many tokens, and the rest in the last. */
  async prefillInPieces(sequence: Followed, pieces: readonly number[]): Promise<StepOutput> {
    let start = 0;
    for (const tokens of pieces) {
      const output = await this.#submit("prefill", [sequence], {}, [start], [start + tokens]);
      assert.deepEqual([...output.tokenIds], [-1], "a piece chooses no token");
      assert.equal(output.promptLogprobs, undefined, "they come with the last piece");
      start += tokens;
    }
    const end = sequence.promptTokenIds.length + sequence.outputTokenIds.length;
    const output = await this.#submit("prefill", [sequence], {}, [start], [end]);
    sequence.outputTokenIds.push(output.tokenIds[0]);
    return output;
  }

  /** Decodes until every sequence of the batch has `numTokens` output tokens. */
  async decode(batch: readonly Followed[], numTokens = NUM_TOKENS): Promise<void> {
    for (;;) {
      const left = batch.filter((sequence) => sequence.outputTokenIds.length < numTokens);
      if (left.length === 0) return;
      await this.step("decode", left);
    }
  }

  /** Output of a sequence that runs alone from start to end; it is gone afterwards. */
  async runAlone(index: number): Promise<number[]> {
    const sequence = this.follow(index);
    await this.step("prefill", [sequence]);
    await this.decode([sequence]);
    this.giveBack(sequence);
    return sequence.outputTokenIds;
  }
}

/**
 * Registers the suite for one executor.
 * @param load makes a fresh executor with at least the SUITE_ sizes; equal in every respect each time
 */
export function testExecutor(name: string, load: () => Promise<Executor>): void {
  function test(what: string, body: (driver: Driver, executor: Executor) => Promise<void>): void {
    Deno.test(`${name}: ${what}`, async () => {
      const executor = await load();
      try {
        await body(new Driver(executor, 1), executor);
      } finally {
        await executor.close();
      }
    });
  }

  test("says what it is", (_driver, { info }) => {
    assert.ok(info.description.length > 0 && info.model.length > 0);
    assert.ok(info.vocabSize >= SUITE_VOCAB_SIZE);
    assert.ok(info.maxModelLen >= SUITE_MODEL_LEN);
    assert.ok(info.numBlocks >= SUITE_BLOCKS && info.numSwapBlocks >= SUITE_SWAP_BLOCKS);
    assert.ok(info.layout.blockSize >= 1);
    return Promise.resolve();
  });

  test("the same request gives the same tokens of its vocabulary", async (driver, executor) => {
    const other = await load();
    const elsewhere = new Driver(other, 99);
    for (const index of [0, 1]) {
      const first = await driver.runAlone(index);
      assert.deepEqual(await driver.runAlone(index), first, "again, on other blocks");
      assert.deepEqual(await elsewhere.runAlone(index), first, "on another instance");
      for (const token of first) assert.ok(token >= 0 && token < executor.info.vocabSize);
    }
    await other.close();
  });

  test("tokens do not depend on the company in the batch", async (driver) => {
    const alone = [];
    for (let index = 0; index < 8; index++) alone.push(await driver.runAlone(index));
    const batch = alone.map((_, index) => driver.follow(index));
    await driver.step("prefill", batch.slice(0, 3));
    await driver.decode(batch.slice(0, 3), 5);
    await driver.step("prefill", batch.slice(3));
    await driver.decode(batch);
    assert.deepEqual(batch.map((sequence) => sequence.outputTokenIds), alone);
  });

  test("a sequence that is computed again goes on as before", async (driver) => {
    const expected = [await driver.runAlone(0), await driver.runAlone(1)];
    const batch = [driver.follow(0), driver.follow(1)];
    await driver.step("prefill", batch);
    await driver.decode(batch, 10);
    for (const sequence of batch) driver.giveBack(sequence);
    await driver.step("prefill", batch);
    await driver.decode(batch);
    assert.deepEqual(batch.map((sequence) => sequence.outputTokenIds), expected);
  });

  test("a sequence that left and came back goes on as before", async (driver) => {
    const expected = [await driver.runAlone(0), await driver.runAlone(1)];
    const batch = [driver.follow(0), driver.follow(1)];
    await driver.step("prefill", batch);
    await driver.decode(batch, 7);
    const removed = batch.map((sequence) => sequence.handle);
    // Handles may be used again in the very step that drops them: here, each by the other.
    const again = batch.map((sequence, i) => ({
      ...sequence,
      handle: removed[1 - i],
      isAnnounced: false,
    }));
    for (const sequence of again) driver.giveBack(sequence);
    await driver.step("prefill", again, { removed });
    await driver.decode(again);
    assert.deepEqual(again.map((sequence) => sequence.outputTokenIds), expected);
  });

  test("a sequence goes on as before after its blocks were swapped", async (driver) => {
    const expected = await driver.runAlone(0);
    const victim = driver.follow(0), other = driver.follow(3);
    await driver.step("prefill", [victim]);
    await driver.decode([victim], 5);
    // The other prompt overwrites the blocks in the step that copies them out.
    const vacated = victim.blocks;
    const out = vacated.flatMap((block, i) => [block, SUITE_SWAP_BLOCKS - 1 - i]);
    other.blocks = [...vacated];
    await driver.step("prefill", [other], { swapOut: out });
    await driver.decode([other], 4);
    victim.blocks = driver.takeBlocks(vacated.length);
    const back = victim.blocks.flatMap((block, i) => [SUITE_SWAP_BLOCKS - 1 - i, block]);
    await driver.step("decode", [other, victim], { swapIn: back });
    await driver.decode([victim]);
    assert.deepEqual(victim.outputTokenIds, expected);
  });

  test("copies out run before copies in", async (driver) => {
    const expected = [await driver.runAlone(0), await driver.runAlone(2)];
    const first = driver.follow(0), second = driver.follow(2), bystander = driver.follow(5);
    const half = SUITE_SWAP_BLOCKS / 2;
    await driver.step("prefill", [first, second]);
    const numFirst = first.blocks.length, numSecond = second.blocks.length;
    assert.ok(numFirst <= numSecond && numSecond <= half);
    const firstOut = first.blocks.flatMap((block, i) => [block, i]);
    await driver.step("prefill", [bystander], { swapOut: firstOut });
    // In one step the second leaves its blocks and the first comes into them.
    const secondOut = second.blocks.flatMap((block, i) => [block, half + i]);
    first.blocks = second.blocks.slice(0, numFirst);
    const firstIn = first.blocks.flatMap((block, i) => [i, block]);
    await driver.step("decode", [first], { swapOut: secondOut, swapIn: firstIn });
    second.blocks = driver.takeBlocks(numSecond);
    const secondIn = second.blocks.flatMap((block, i) => [half + i, block]);
    await driver.step("decode", [second], { swapIn: secondIn });
    await driver.decode([first, second]);
    assert.deepEqual([first.outputTokenIds, second.outputTokenIds], expected);
  });

  test("log probabilities go to those who asked, and change no token", async (driver) => {
    const expected = await driver.runAlone(0);
    const plain = driver.follow(2), asking = driver.follow(0, { logprobs: 3, promptLogprobs: 2 });
    const prefill = await driver.step("prefill", [plain, asking]);
    assert.equal(prefill.logprobs?.[0], null);
    assert.equal(prefill.promptLogprobs?.[0], null);
    const entry = prefill.logprobs?.[1];
    assert.equal(entry?.tokenId, asking.outputTokenIds[0]);
    assert.equal(entry?.top.length, 3);
    assert.ok(entry!.logprob! <= 0);
    const prompt = prefill.promptLogprobs?.[1];
    assert.equal(prompt?.length, asking.promptTokenIds.length);
    assert.equal(prompt![0], null, "nothing predicts the first token");
    for (const [i, item] of prompt!.entries()) {
      if (i > 0) assert.equal(item?.tokenId, asking.promptTokenIds[i]);
    }
    const decode = await driver.step("decode", [asking]);
    assert.equal(decode.logprobs?.length, 1);
    assert.equal(decode.promptLogprobs, undefined);
    const without = await driver.step("decode", [plain]);
    assert.equal(without.logprobs, undefined);
    await driver.decode([asking]);
    assert.deepEqual(asking.outputTokenIds, expected);
  });

  test(
    "a prompt in pieces has the tokens and log probabilities of a whole one",
    async (driver, executor) => {
      if (executor.info.maxPieceTokens === undefined) return; // its prompts come whole
      const whole = driver.follow(2, { promptLogprobs: 1 });
      const expected = await driver.step("prefill", [whole]);
      await driver.decode([whole]);
      const company = driver.follow(0);
      await driver.step("prefill", [company]);
      for (const pieces of [[1], [20, 5], [16, 16, 10], [42]]) {
        const cut = driver.follow(2, { promptLogprobs: 1 });
        assert.equal(cut.promptTokenIds.length, 43);
        const output = await driver.prefillInPieces(cut, pieces);
        assert.deepEqual(output.promptLogprobs, expected.promptLogprobs, `pieces ${pieces}`);
        await driver.decode([company, cut]);
        assert.deepEqual(cut.outputTokenIds, whole.outputTokenIds, `pieces ${pieces}`);
        driver.giveBack(cut);
      }
      // As after a preemption: the first tokens of the output are computed with the prompt.
      const again = driver.follow(2);
      again.outputTokenIds.push(...whole.outputTokenIds.slice(0, 5));
      await driver.prefillInPieces(again, [45]);
      await driver.decode([again]);
      assert.deepEqual(again.outputTokenIds, whole.outputTokenIds);
    },
  );

  test("close is idempotent, and nothing runs afterwards", async (driver, executor) => {
    const sequence = driver.follow(0);
    await driver.step("prefill", [sequence]);
    await executor.close();
    await executor.close();
    await assert.rejects(driver.step("decode", [sequence]));
  });
}

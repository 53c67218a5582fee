/** What every implementation of `MigrationBackend` must do. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../src/core/errors.ts";
import { Random } from "../../src/core/random.ts";
import { blockBytes } from "../../src/kv/layout.ts";
import type { KvPool } from "../../src/kv/pool/pool.ts";
import type {
  BlockTransfer,
  MigrationBackend,
  TransferLimits,
} from "../../src/kv/transfer/backend.ts";
import { contents, fill, poolLayout } from "./kv_pool.ts";

/** Layout of the suite's pools, the same as in the suite of pools. */
export const suiteLayout = poolLayout;
export const SUITE_BLOCKS = 24;

/** One instance's end, and the pool that it serves. */
export interface BackendEnd {
  readonly backend: MigrationBackend;
  readonly pool: KvPool;
}

/** Two instances under test. */
export interface BackendPair {
  readonly source: BackendEnd;
  readonly destination: BackendEnd;
  /** Where an end serves, for backends that use the bus. */
  addressOf?(end: BackendEnd): string;
  /** Its name, for backends with groups. */
  instanceIdOf?(end: BackendEnd): string;
  /** Of the source's clock. */
  nowMs(): number;
  /** Lets what the backends wait for happen until `promise` settles. */
  settle<T>(promise: Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** An implementation under test. */
export interface BackendUnderTest {
  readonly name: string;
  /** False where pools hold nothing: then only what is said of a transfer is tested. */
  readonly hasData: boolean;
  /** It has no staging buffer: a transfer is one round, whatever the limits are. */
  readonly ignoresLimits?: boolean;
  /** Why the tests cannot run here. */
  readonly skipped?: string;
  /** Registers only the tests with such titles: for another form of a backend that passes all. */
  readonly only?: RegExp;
  open(limits: TransferLimits): Promise<BackendPair>;
}

/** Registers the suite's tests. */
export function testMigrationBackend(subject: BackendUnderTest): void {
  const { skipped, only, ignoresLimits = false } = subject;
  const test = (title: string, fn: () => Promise<void>) => {
    if (only?.test(title) === false) return;
    const reason = skipped === undefined ? "" : ` (skipped: ${skipped})`;
    const name = `${subject.name} backend: ${title}${reason}`;
    Deno.test({ name, ignore: skipped !== undefined, fn });
  };
  const bytes = blockBytes(suiteLayout);

  async function withPair(limits: TransferLimits, body: (pair: BackendPair) => Promise<void>) {
    const pair = await subject.open(limits);
    try {
      await fill(pair.source.pool, 1);
      await fill(pair.destination.pool, 2);
      await body(pair);
    } finally {
      await pair.close();
    }
  }

  function transferOf(
    pair: BackendPair,
    sourceBlocks: readonly number[],
    destinationBlocks: readonly number[],
  ): BlockTransfer {
    return {
      migrationId: "m",
      destination: {
        instanceId: pair.instanceIdOf?.(pair.destination) ?? "destination",
        address: pair.addressOf?.(pair.destination) ?? "",
      },
      endpoint: JSON.parse(JSON.stringify(pair.destination.backend.endpoint)),
      sourceBlocks,
      destinationBlocks,
      deadlineMs: pair.nowMs() + 60_000,
    };
  }

  /** Sends what is granted already. */
  function start(pair: BackendPair, transfer: BlockTransfer) {
    return pair.settle(pair.source.backend.send(transfer, new AbortController().signal));
  }

  function grant(pair: BackendPair, blocks: readonly number[]): Promise<void> {
    return pair.settle(pair.destination.backend.grant("m", blocks));
  }

  function revoke(pair: BackendPair): Promise<void> {
    return pair.settle(pair.destination.backend.revoke("m"));
  }

  /** Grants, sends, revokes, and verifies that exactly the named blocks have changed. */
  async function send(pair: BackendPair, from: readonly number[], to: readonly number[]) {
    const before = await contents(pair.destination.pool);
    const source = await contents(pair.source.pool);
    await grant(pair, to);
    const statistics = await start(pair, transferOf(pair, from, to));
    await revoke(pair);
    if (subject.hasData) {
      from.forEach((block, i) => before[to[i]] = source[block]);
      assert.deepEqual(await contents(pair.destination.pool), before);
      assert.deepEqual(await contents(pair.source.pool), source);
    }
    assert.equal(statistics.bytes, from.length * bytes);
    assert.ok(statistics.transferMs >= 0);
    return statistics;
  }

  test("copies blocks to their places, and nothing else", () =>
    withPair({ bufferBlocks: 512, numLayers: 4 }, async (pair) => {
      assert.ok(pair.source.backend.isReady);
      const statistics = await send(pair, [3, 9, 4, 20], [7, 0, 23, 11]);
      assert.deepEqual([statistics.rounds, statistics.descriptors], [1, 4]);
    }));

  test("nothing to copy is no round", () =>
    withPair({ bufferBlocks: 2, numLayers: 1 }, async (pair) => {
      const { rounds, descriptors, bytes } = await send(pair, [], []);
      assert.deepEqual([rounds, descriptors, bytes], [0, 0, 0]);
    }));

  test("rounds are of at most so many blocks and layers", () =>
    withPair({ bufferBlocks: 3, numLayers: 3 }, async (pair) => {
      const blocks = [1, 3, 5, 7, 9, 11, 13];
      const { rounds, descriptors } = await send(pair, blocks, blocks.toReversed());
      // 3 + 3 + 1 blocks, each 3 + 1 layers.
      assert.deepEqual([rounds, descriptors], ignoresLimits ? [1, 7] : [6, 14]);
    }));

  test("adjacent blocks are one descriptor when all layers go at once", () =>
    withPair({ bufferBlocks: 6, numLayers: 4 }, async (pair) => {
      const from = [4, 5, 6, 7, 1, 2, 3, 0], to = [10, 11, 12, 20, 21, 22, 23, 3];
      const { rounds, descriptors } = await send(pair, from, to);
      // Round one: 4 5 6, 7, 1 2; round two: 3, 0.
      // Without limits: 4 5 6, 7, 1 2 3, 0.
      assert.deepEqual([rounds, descriptors], ignoresLimits ? [1, 4] : [2, 5]);
    }));

  test("random transfers, one after the other and in both directions", () =>
    withPair({ bufferBlocks: 5, numLayers: 4 }, async (pair) => {
      const random = new Random(11);
      const back: BackendPair = { ...pair, source: pair.destination, destination: pair.source };
      for (let i = 0; i < 12; i++) {
        const count = 1 + random.below(SUITE_BLOCKS);
        const from = shuffled(random).slice(0, count), to = shuffled(random).slice(0, count);
        await send(i % 2 === 0 ? pair : back, from, to);
      }
    }));

  test("after an abort it settles, and after a revocation nothing more is written", () =>
    withPair({ bufferBlocks: 1, numLayers: 1 }, async (pair) => {
      const controller = new AbortController();
      await grant(pair, allBlocks);
      const transfer = transferOf(pair, allBlocks, allBlocks);
      const sending = pair.source.backend.send(transfer, controller.signal);
      sending.catch(() => {});
      controller.abort();
      await assert.rejects(pair.settle(sending), UnavailableError);
      await revoke(pair);
      const after = await contents(pair.destination.pool);
      await fill(pair.source.pool, 3);
      await send(pair, [], []);
      assert.deepEqual(await contents(pair.destination.pool), after);
      await grant(pair, [1]);
      const again = pair.source.backend.send(transferOf(pair, [1], [1]), controller.signal);
      await assert.rejects(pair.settle(again), UnavailableError);
    }));

  test("what was not granted, or is revoked, is refused, and nothing is written", () =>
    withPair({ bufferBlocks: 8, numLayers: 4 }, async (pair) => {
      const before = await contents(pair.destination.pool);
      const transfer = transferOf(pair, [1, 2], [3, 4]);
      await assert.rejects(
        start(pair, transfer),
        unavailable(/may write nothing: it is not known/),
      );
      await grant(pair, [3, 5]);
      await assert.rejects(start(pair, transfer), unavailable(/block 4 is not granted/));
      const other = { ...transfer, migrationId: "n", destinationBlocks: [3, 5] };
      await assert.rejects(start(pair, other), unavailable(/migration n may write nothing/));
      await grant(pair, [4]);
      await revoke(pair);
      await assert.rejects(start(pair, transfer), unavailable(/or was revoked/));
      await revoke(pair);
      assert.deepEqual(await contents(pair.destination.pool), before);
      await send(pair, [1, 2], [3, 4]);
    }));

  test("a revocation during a transfer ends it", () =>
    withPair({ bufferBlocks: 1, numLayers: 1 }, async (pair) => {
      await grant(pair, allBlocks);
      const sending = start(pair, transferOf(pair, allBlocks, allBlocks));
      sending.catch(() => {});
      await revoke(pair);
      const after = await contents(pair.destination.pool);
      await sending.catch((error) => assert.ok(error instanceof UnavailableError));
      assert.deepEqual(await contents(pair.destination.pool), after);
    }));

  test("blocks are granted to one migration beside another", () =>
    withPair({ bufferBlocks: 8, numLayers: 4 }, async (pair) => {
      const { backend } = pair.destination;
      await grant(pair, [3]);
      await pair.settle(backend.grant("n", [4]));
      await start(pair, transferOf(pair, [1], [3]));
      await pair.settle(backend.revoke("n"));
      await start(pair, transferOf(pair, [2], [3]));
      const missing = pair.settle(backend.grant("m", [SUITE_BLOCKS]));
      await assert.rejects(missing, RangeError);
    }));

  test("nothing is written after the deadline", () =>
    withPair({ bufferBlocks: 8, numLayers: 4 }, async (pair) => {
      const before = await contents(pair.destination.pool);
      await grant(pair, [3, 4]);
      const late = { ...transferOf(pair, [1, 2], [3, 4]), deadlineMs: pair.nowMs() - 1 };
      await assert.rejects(start(pair, late), unavailable(/deadline has passed/));
      assert.deepEqual(await contents(pair.destination.pool), before);
    }));

  test("a destination that is gone is unavailable", () =>
    withPair({ bufferBlocks: 8, numLayers: 4 }, async (pair) => {
      const transfer = transferOf(pair, [1], [2]);
      await grant(pair, [2]);
      await pair.destination.backend.close();
      await assert.rejects(start(pair, transfer), UnavailableError);
    }));

  test("blocks that are not there, and lists that do not match, are errors", () =>
    withPair({ bufferBlocks: 8, numLayers: 4 }, async (pair) => {
      await grant(pair, [1]);
      for (const [from, to] of [[[SUITE_BLOCKS], [1]], [[1, 2], [1]]]) {
        await assert.rejects(start(pair, transferOf(pair, from, to)), RangeError);
      }
    }));

  test("closed twice it is not ready, and sends nothing", () =>
    withPair({ bufferBlocks: 8, numLayers: 4 }, async (pair) => {
      const { backend } = pair.source;
      await grant(pair, [2]);
      await backend.close();
      await backend.close();
      assert.ok(!backend.isReady);
      await pair.settle(backend.revoke("m"));
      await assert.rejects(start(pair, transferOf(pair, [1], [2])), UnavailableError);
    }));
}

const allBlocks = Array.from({ length: SUITE_BLOCKS }, (_, block) => block);

function unavailable(message: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof UnavailableError && message.test(error.message);
}

function shuffled(random: Random): number[] {
  const blocks = [...allBlocks];
  for (let i = blocks.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [blocks[i], blocks[j]] = [blocks[j], blocks[i]];
  }
  return blocks;
}

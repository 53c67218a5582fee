import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { parseAddress, type ParsedAddress, tcpAddress } from "../../../../src/bus/address.ts";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { AccountedKvPool } from "../../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { libraries } from "../../../../ffi/library_search.ts";
import { realFiles } from "../../../ffi/real_libraries.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { contents, fill } from "../../../conformance/kv_pool.ts";
import { PATIENCE_MS, until, within } from "../../../patience.ts";
import { LossyLink } from "../../../conformance/lossy_link.ts";
import { networkLayout } from "../../../conformance/network_backend.ts";
import {
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";
import { farHost, openPair, type PullEnd, transferTo } from "./support.ts";

type ParsedTcp = ParsedAddress & { readonly scheme: "tcp" };

testMigrationBackend({
  name: "kvtransfer",
  hasData: true,
  ignoresLimits: true,
  open: () => openPair(),
});
testMigrationBackend({
  name: "kvtransfer, without memory",
  hasData: false,
  ignoresLimits: true,
  open: () => {
    const pool = new AccountedKvPool(suiteLayout, SUITE_BLOCKS);
    return openPair({ pool }, { pool });
  },
});

const [ucx] = realFiles(libraries.ucp);
const far = { ...thisProcess(), ...farHost };
testMigrationBackend({
  name: "kvtransfer by UCX",
  hasData: true,
  ignoresLimits: true,
  skipped: ucx === undefined
    ? "no libucp here; LLUMNIX_TEST_WHEELS can name a directory of unpacked wheels"
    : undefined,
  open: () => openPair({ ucx, process: far }, { ucx }),
});

/** Of 256 KiB: two pieces at full speed, ten in the background. */
const LARGE_BLOCKS = 20;
const signal = new AbortController().signal;
const allBlocks = Array.from({ length: LARGE_BLOCKS }, (_, block) => block);

type Ends = Record<"source" | "destination", PullEnd & { readonly pool: ArrayKvPool }>;

/** A pool whose words all differ. */
function largePool(seed: number): ArrayKvPool {
  const pool = new ArrayKvPool(networkLayout, LARGE_BLOCKS);
  const words = new Uint32Array(pool.bytes.buffer);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + seed, 0x9e3779b1);
  return pool;
}

/** `assert.deepEqual` takes seconds for as many bytes. */
function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Two ends with large pools, and a link with faults that the calls of the source go through. */
async function withLink(
  body: (ends: Ends, link: LossyLink, address: string) => Promise<void>,
): Promise<void> {
  const pools = { source: largePool(1), destination: largePool(2) };
  const pair = await openPair({ pool: pools.source }, { pool: pools.destination });
  const { host, port } = parseAddress(pair.destination.listener.address) as ParsedTcp;
  const link = new LossyLink(port);
  try {
    const ends: Ends = {
      source: { ...pair.source, pool: pools.source },
      destination: { ...pair.destination, pool: pools.destination },
    };
    await body(ends, link, tcpAddress(host, link.port));
  } finally {
    link.close();
    await pair.close();
  }
}

for (const then of ["cut", "hang"] as const) {
  for (const afterBytes of [0, 10, 300]) {
    const title = `calls ${then} after ${afterBytes} bytes; it gives up, and works again`;
    Deno.test(`kvtransfer backend: ${title}`, () =>
      withLink(async ({ source, destination }, link, address) => {
        link.set({ then, afterBytes });
        await destination.backend.grant("m", allBlocks);
        const transfer = transferTo(destination, address, allBlocks, 300);
        const sending = within(source.backend.send(transfer, signal), "it gives up");
        await assert.rejects(sending, UnavailableError);
        link.set({});
        await destination.backend.revoke("m");
        await destination.backend.grant("m", allBlocks);
        await source.backend.send(transferTo(destination, address, allBlocks), signal);
        assert.ok(areEqual(source.pool.bytes, destination.pool.bytes));
      }));
  }
}

for (const isBackground of [false, true]) {
  const title = "after a revocation nothing more is written" +
    (isBackground ? ", in the background" : "");
  Deno.test(`kvtransfer backend: ${title}`, () =>
    withLink(async ({ source, destination }, _, address) => {
      const { bytes } = destination.pool;
      // On a busy machine the transfer may be over before it is revoked.
      for (let round = 0; round < 5; round++) {
        await destination.backend.grant("m", allBlocks);
        const before = bytes[0];
        source.pool.bytes[0] = before + 1;
        const transfer = { ...transferTo(destination, address, allBlocks), isBackground };
        const sending = source.backend.send(transfer, signal).then(() => null, (error) => error);
        await until(() => bytes[0] !== before, "the first block is written", 0);
        await within(destination.backend.revoke("m"), "the revocation");
        const after = bytes.slice();
        source.pool.bytes.fill(round);
        const error = await sending;
        assert.ok(areEqual(bytes, after));
        if (error === null && isBackground) continue;
        if (error !== null) assert.match(error.message, /was revoked/);
        return;
      }
      assert.fail("all transfers were over before their revocation");
    }));
}

Deno.test("kvtransfer backend: in the background all blocks come before the deadline", () =>
  withLink(async ({ source, destination }, _, address) => {
    await destination.backend.grant("m", allBlocks);
    const send = (leftMs: number) =>
      source.backend.send(
        { ...transferTo(destination, address, allBlocks, leftMs), isBackground: true },
        signal,
      );
    // A busy machine may need longer than a second.
    await send(1_000).catch(() => send(PATIENCE_MS));
    assert.ok(areEqual(source.pool.bytes, destination.pool.bytes));
  }));

Deno.test("kvtransfer backend: blocks can be made ready before they are granted, and keep what they hold", async () => {
  const { destination: { backend, pool }, close } = await openPair();
  await fill(pool, 7);
  const before = await contents(pool);
  backend.prepare([1, 0, 2]);
  await backend.grant("m", [0]);
  await backend.revoke("m"); // answered by the thread, after it began to prepare
  assert.deepEqual(await contents(pool), before);
  assert.throws(() => backend.prepare([1 << 20]), RangeError);
  await close();
});

const here = thisProcess();
const refusals = {
  "another model": [{ model: "n" }, /KV pools differ: the model is m here and n there \(source\)/],
  "another layout": [
    { pool: new ArrayKvPool({ ...suiteLayout, headDim: 16 }, SUITE_BLOCKS) },
    /KV pools differ: headDim is 8 here and 16 there/,
  ],
  "a pool that holds nothing": [
    { pool: new AccountedKvPool(suiteLayout, SUITE_BLOCKS) },
    /the KV pool is in memory "host" here and "none" there/,
  ],
  "another container": [
    { process: { ...here, pidNamespace: "pid:[1]" } },
    /source runs on another host or in another container/,
  ],
  "another host": [
    { process: { ...here, bootId: "other", hostname: "far" } },
    /in another container \(far, and this is .*\): that needs UCX, which destination and source did not open \(the log says why\)\. Install UCX/,
  ],
  "a process that has ended, whose number another one has": [
    { process: { ...here, startTicks: here.startTicks + 1 } },
    // The destination removes the entry when it opens.
    /source has no entry in the naming directory/,
  ],
} as const;

for (const [what, [shape, message]] of Object.entries(refusals)) {
  Deno.test(`kvtransfer backend: a source with ${what} is refused, and nothing is written`, async () => {
    const { source, destination, close } = await openPair(shape);
    const before = await contents(destination.pool);
    await destination.backend.grant("m", [1]);
    const transfer = transferTo(destination, destination.listener.address, [1]);
    await assert.rejects(source.backend.send(transfer, signal), (error: Error) => {
      assert.ok(error instanceof UnavailableError);
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(await contents(destination.pool), before);
    await close();
  });
}

Deno.test("kvtransfer backend: an order of an earlier start of the source is refused", async () => {
  const { source, destination, close } = await openPair();
  await destination.backend.grant("m", [1]);
  const order = {
    migrationId: "m",
    sourceId: source.instanceId,
    generation: "earlier",
    sourceBlocks: [1],
    destinationBlocks: [1],
    timeoutMs: 1_000,
    isBackground: false,
  };
  const pull = async (changes = {}) => {
    await destination.backend.calls.migrate_pull({ data: { ...order, ...changes } });
  };
  await assert.rejects(pull(), /source has no entry in .*: it has ended or started anew/);
  const naming = String(destination.backend.endpoint.naming);
  const [{ name }] = [...Deno.readDirSync(naming)].filter(({ name }) => name.startsWith("source."));
  const { generation } = JSON.parse(Deno.readTextFileSync(`${naming}/${name}`));
  await assert.rejects(
    pull({ generation, sourceBlocks: [SUITE_BLOCKS] }),
    /block 24 of a KV pool of 24/,
  );
  await assert.rejects(pull({ generation, sourceBlocks: [1, 2] }), /2 blocks into 1 blocks/);
  await pull({ generation });
  await close();
});

Deno.test("kvtransfer backend: ends with different naming directories say so", async () => {
  const { source, destination, close } = await openPair();
  const transfer = {
    ...transferTo(destination, destination.listener.address, [1]),
    endpoint: { naming: "/elsewhere" },
  };
  await assert.rejects(
    source.backend.send(transfer, signal),
    /the naming directory is \/tmp\/.* here and \/elsewhere for destination: give both the same --migration-backend-kvtransfer/,
  );
  await close();
});

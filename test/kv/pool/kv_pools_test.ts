import assert from "node:assert/strict";
import { blockBytes } from "../../../src/kv/layout.ts";
import { AccountedKvPool } from "../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../src/kv/pool/array_kv_pool.ts";
import { HostKvPool } from "../../../src/kv/pool/host_kv_pool.ts";
import { describePool, openPool } from "../../../src/kv/pool/open_pool.ts";
import { POOL_BLOCKS, poolLayout as layout, testKvPool } from "../../conformance/kv_pool.ts";
import { ExampleDevicePool } from "./example_device_pool.ts";

const memory = new Uint8Array(POOL_BLOCKS * blockBytes(layout));
const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));

testKvPool({ name: "array", open: () => new ArrayKvPool(layout, POOL_BLOCKS) });
testKvPool({ name: "host", open: () => new HostKvPool(address, layout, POOL_BLOCKS) });
testKvPool({
  name: "host in segments",
  open: () => new HostKvPool(address, layout, POOL_BLOCKS, 3 * blockBytes(layout)),
});
testKvPool({
  name: "host from its description",
  open: () => openPool(structuredClone(describePool(new ArrayKvPool(layout, POOL_BLOCKS, memory)))),
});
testKvPool({ name: "accounted", open: () => new AccountedKvPool(layout, POOL_BLOCKS) });
testKvPool({
  name: "accounted from its description",
  open: () => openPool(describePool(new AccountedKvPool(layout, POOL_BLOCKS))),
});
testKvPool({ name: "example device", open: () => new ExampleDevicePool(layout, POOL_BLOCKS) });

Deno.test("a pool from a description is the same memory", async () => {
  const array = new ArrayKvPool(layout, POOL_BLOCKS, memory);
  const opened = await openPool(describePool(array));
  assert.ok(opened.memory === "host");
  array.run(5, 1, 1)[3] ^= 255;
  assert.deepEqual(opened.run(5, 1, 1), array.run(5, 1, 1));
});

Deno.test("the pool of a device is opened by the device's line in the register", async () => {
  const described = describePool(new ExampleDevicePool(layout, POOL_BLOCKS, 4096n));
  const opened = await openPool(
    described,
    new Map([[
      "example",
      ({ layout, numBlocks, address }) =>
        Promise.resolve(new ExampleDevicePool(layout, numBlocks, address)),
    ]]),
  );
  assert.deepEqual(describePool(opened), described);
  await assert.rejects(openPool(described), /no KV pool is registered for the device example/);
});

Deno.test("an array that is not as long as its blocks is an error", () => {
  assert.throws(() => new ArrayKvPool(layout, 3, new Uint8Array(1)), RangeError);
});

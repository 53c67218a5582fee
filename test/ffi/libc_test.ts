import assert from "node:assert/strict";
import { mapFile, populate } from "../../ffi/libc.ts";

Deno.test("mapFile: ranges read what the file holds", () => {
  const path = Deno.makeTempFileSync();
  const content = Uint8Array.from({ length: 10_001 }, (_, i) => i * 7 & 255);
  Deno.writeFileSync(path, content);
  const file = mapFile(path);
  Deno.removeSync(path);
  assert.ok(file, "this system maps files");
  assert.equal(file.byteLength, content.length);
  assert.deepEqual(file.slice(0, content.length), content);
  assert.deepEqual(file.slice(4097, 5000), content.slice(4097, 9097));
  assert.deepEqual(file.slice(10_001, 0), new Uint8Array());
  assert.throws(() => file.slice(9000, 1002), RangeError);
  file.close();
  file.close();
  assert.throws(() => file.slice(0, 1), /closed/);
});

Deno.test("mapFile: a missing file is an error, an empty one cannot be mapped", () => {
  assert.throws(() => mapFile("/nowhere/at/all"), Deno.errors.NotFound);
  const path = Deno.makeTempFileSync();
  assert.equal(mapFile(path), null);
  Deno.removeSync(path);
});

Deno.test({
  name: "populate: memory gets its pages from Linux 5.14 on, and keeps what is written there",
  ignore: Deno.build.os !== "linux",
}, () => {
  const memory = new Uint8Array(64 << 20);
  memory[5 << 20] = 7;
  const before = Deno.memoryUsage().rss;
  const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
  const isDone = populate(address, memory.length);
  const [major, minor] = Deno.osRelease().split(".").map((part) => parseInt(part));
  assert.equal(isDone, major > 5 || major === 5 && minor >= 14);
  const grownBytes = Deno.memoryUsage().rss - before;
  assert.ok(isDone ? grownBytes > 48 << 20 : grownBytes < 16 << 20, "it had no pages before");
  assert.equal(memory.findIndex((byte) => byte !== 0), 5 << 20);
  assert.equal(memory[5 << 20], 7);
});

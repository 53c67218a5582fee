import assert from "node:assert/strict";
import { encodeHead, FrameReader, maxHeadBytes } from "../../src/bus/frame_codec.ts";
import type { Frame } from "../../src/bus/outbox.ts";
import { Random } from "../../src/core/random.ts";

/** Sizes around those at which the reader changes its ways, and many small ones. */
function randomSize(random: Random): number {
  const sizes = [0, 1, 100, 5_000, 100_000, (256 << 10) - 8, 256 << 10, 600_000];
  const largest = sizes[random.below(random.below(10) === 0 ? sizes.length : 4)];
  return Math.max(0, largest - random.below(3));
}

function randomFrame(random: Random): Frame {
  const text = "añ€𝄞x".repeat(randomSize(random) / 10);
  if (random.below(2) === 0) return { text, payload: null };
  const payload = new Uint8Array(randomSize(random));
  for (let i = 0; i < payload.length; i += 101) payload[i] = random.below(256);
  return { text, payload };
}

function encode(frames: readonly Frame[]): Uint8Array {
  const bound = frames.reduce((sum, frame) => {
    return sum + maxHeadBytes(frame) + (frame.payload?.length ?? 0);
  }, 0);
  const stream = new Uint8Array(bound);
  let end = 0;
  for (const frame of frames) {
    end = encodeHead(frame, stream, end);
    if (frame.payload) stream.set(frame.payload, end);
    end += frame.payload?.length ?? 0;
  }
  return stream.subarray(0, end);
}

Deno.test("frames come out as they went in, however the stream is cut", () => {
  for (let seed = 0; seed < 40; seed++) {
    const random = new Random(seed);
    const frames = Array.from({ length: 1 + random.below(30) }, () => randomFrame(random));
    const stream = encode(frames);
    const reader = new FrameReader(64 << 20);
    const largestRead = [7, 1000, 70_000, Infinity][random.below(4)];
    let received = 0;
    for (let offset = 0; offset < stream.length;) {
      const space = reader.space();
      assert.ok(space.length > 0, `seed ${seed}: no space after ${offset} bytes`);
      const bytes = Math.min(space.length, largestRead, stream.length - offset);
      space.set(stream.subarray(offset, offset + bytes));
      reader.advance(bytes);
      offset += bytes;
      for (let frame = reader.next(); frame !== null; frame = reader.next()) {
        const expected = frames[received++];
        assert.ok(frame.json === `[${expected.text}]`, `seed ${seed}: text ${received}`);
        assert.equal(frame.payload === null, expected.payload === null);
        const isEqual = expected.payload?.every((byte, i) => byte === frame!.payload![i]) ?? true;
        assert.ok(isEqual && frame.payload?.length === expected.payload?.length, `seed ${seed}`);
      }
    }
    assert.equal(received, frames.length);
  }
});

Deno.test("a payload stays what it was while later frames arrive", () => {
  const frames = [1, 2].map((byte) => ({ text: "0", payload: new Uint8Array(100).fill(byte) }));
  const reader = new FrameReader(1000);
  const payloads = frames.map((frame) => {
    const stream = encode([frame]);
    reader.space().set(stream);
    reader.advance(stream.length);
    const { payload } = reader.next()!;
    assert.equal(reader.next(), null);
    return payload!;
  });
  assert.deepEqual(payloads, frames.map(({ payload }) => payload));
});

Deno.test("the buffer of a large payload serves another frame once it is given back, and only one", () => {
  const reader = new FrameReader(8 << 20);
  const receive = (size: number, byte: number) => {
    const stream = encode([{ text: "0", payload: new Uint8Array(size).fill(byte) }]);
    for (let fed = 0; fed < stream.length;) {
      const space = reader.space();
      const part = stream.subarray(fed, fed + space.length);
      space.set(part);
      reader.advance(part.length);
      fed += part.length;
      const frame = reader.next();
      assert.equal(frame === null, fed < stream.length);
      if (frame !== null) return { ...frame, payload: frame.payload! };
    }
    assert.fail("no frame came");
  };
  const first = receive(600_000, 1), second = receive(600_000, 2);
  assert.notEqual(first.payload.buffer, second.payload.buffer);
  first.giveBack!();
  const third = receive(590_000, 3);
  assert.equal(third.payload.buffer, first.payload.buffer);
  first.giveBack!();
  const fourth = receive(590_000, 4);
  for (const [i, { payload }] of [second, third, fourth].entries()) {
    assert.ok(payload.length >= 590_000 && payload.every((byte) => byte === i + 2), `${i}`);
  }
  fourth.giveBack!();
  assert.notEqual(receive(2_000_000, 5).payload.buffer, fourth.payload.buffer);
  assert.equal(receive(100, 6).giveBack, undefined);
  // A large one is not kept.
  const large = receive(5_000_000, 7);
  large.giveBack!();
  assert.notEqual(receive(600_000, 8).payload.buffer, large.payload.buffer);
});

Deno.test("a frame over the limit is refused before it is read", () => {
  const stream = encode([{ text: "x".repeat(990), payload: new Uint8Array(9) }]);
  const reader = new FrameReader(1000);
  reader.space().set(stream.subarray(0, 8));
  reader.advance(8);
  assert.throws(() => reader.next(), /a frame of 1001 bytes is over the limit of 1000/);
});

Deno.test("memory of a large frame follows what has arrived, not what its header promises", () => {
  const reader = new FrameReader(64 << 20);
  const header = new Uint8Array(8);
  new DataView(header.buffer).setUint32(0, 2, true);
  new DataView(header.buffer).setUint32(4, 60 << 20, true);
  const feed = (bytes: Uint8Array) => {
    let fed = 0;
    while (fed < bytes.length) {
      const space = reader.space();
      const part = bytes.subarray(fed, fed + space.length);
      space.set(part);
      reader.advance(part.length);
      fed += part.length;
      assert.equal(reader.next(), null);
    }
  };
  feed(header);
  assert.ok(reader.space().buffer.byteLength <= 4 << 20);
  feed(new TextEncoder().encode("[]"));
  let arrived = 10;
  for (; arrived < 40 << 20; arrived += 1 << 20) {
    feed(new Uint8Array(1 << 20));
    assert.ok(reader.space().buffer.byteLength <= Math.max(4 << 20, 2 * arrived + (4 << 20)));
  }
  const rest = new Uint8Array((60 << 20) + 10 - arrived).fill(7);
  let fed = 0;
  let frame = null;
  while (fed < rest.length) {
    const space = reader.space();
    const part = rest.subarray(fed, fed + space.length);
    space.set(part);
    reader.advance(part.length);
    fed += part.length;
    frame = reader.next();
  }
  assert.equal(frame?.payload?.length, 60 << 20);
  assert.equal(frame.payload[0], 0);
  assert.equal(frame.payload.at(-1), 7);
});

Deno.test("what is not UTF-8 is refused, and the character that stands for it may be sent", () => {
  const sent: Frame = { text: '"\uFFFD ok"', payload: null };
  const reader = new FrameReader(1 << 20);
  const take = (bytes: Uint8Array) => {
    reader.space().set(bytes);
    reader.advance(bytes.length);
    return reader.next();
  };
  assert.equal(take(encode([sent]))!.json, `[${sent.text}]`);
  const broken = encode([{ text: '"abcd"', payload: null }]).slice();
  broken[broken.length - 4] = 0xff;
  assert.throws(() => take(broken), /not UTF-8/);
});

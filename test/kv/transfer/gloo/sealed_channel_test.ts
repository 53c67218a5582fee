import assert from "node:assert/strict";
import { createDecipheriv } from "node:crypto";
import { addressOf } from "../../../../ffi/memory.ts";
import { openSockets, type Sockets } from "../../../../ffi/sockets.ts";
import { ConnectionLost } from "../../../../src/kv/transfer/gloo/channel.ts";
import {
  MAX_RECORD_BYTES,
  Opener,
  SealedChannel,
  Sealer,
} from "../../../../src/kv/transfer/gloo/sealed_channel.ts";
import { PATIENCE_MS } from "../../../patience.ts";

const key = new Uint8Array(32).fill(7);
const text = (words: string) => new TextEncoder().encode(words);

Deno.test("sealed channel: records open once, in their order, with their key", () => {
  const sealer = new Sealer(key), opener = new Opener(key);
  const first = sealer.seal(text("first")), second = sealer.seal(text("second"));
  assert.deepEqual(new Uint8Array(opener.open(first)), text("first"));
  assert.throws(() => opener.open(first), ConnectionLost);
  assert.throws(() => new Opener(key).open(second), ConnectionLost);
  assert.throws(() => new Opener(new Uint8Array(32)).open(first), ConnectionLost);
  assert.ok(!new TextDecoder("latin1").decode(first).includes("first"));
});

Deno.test("sealed channel: a changed bit anywhere is found", () => {
  const record = new Sealer(key).seal(text("block"));
  for (let bit = 0; bit < 8 * record.length; bit++) {
    const changed = record.slice();
    changed[bit >> 3] ^= 1 << (bit & 7);
    assert.throws(() => new Opener(key).open(changed), ConnectionLost, `bit ${bit}`);
  }
});

Deno.test("sealed channel: the cipher is that of RFC 8439 (its appendix A.5)", () => {
  const hex = (digits: string) => Uint8Array.fromHex(digits.replaceAll(/\s/g, ""));
  const decipher = createDecipheriv(
    "chacha20-poly1305",
    hex("1c9240a5eb55d38af333888604f6b5f0 473917c1402b80099dca5cbc207075c0"),
    hex("000000000102030405060708"),
    { authTagLength: 16 },
  );
  decipher.setAAD(hex("f33388860000000000004e91"), { plaintextLength: 265 });
  decipher.setAuthTag(hex("eead9d67890cbb22392336fea1851f38"));
  const plain = decipher.update(hex(`
    64a0861575861af460f062c79be643bd 5e805cfd345cf389f108670ac76c8cb2
    4c6cfc18755d43eea09ee94e382d26b0 bdb7b73c321b0100d4f03b7f355894cf
    332f830e710b97ce98c8a84abd0b9481 14ad176e008d33bd60f982b1ff37c855
    9797a06ef4f0ef61c186324e2b350638 3606907b6a7c02b0f9f6157b53c867e4
    b9166c767b804d46a59b5216cde7a4e9 9040c5a40433225ee282a1b0a06c523e
    af4534d7f83fa1155b0047718cbc546a 0d072b04b3564eea1b422273f548271a
    0bb2316053fa76991955ebd63159434e cebb4e466dae5a1073a6727627097a10
    49e617d91d361094fa68f0ff77987130 305beaba2eda04df997b714d6c6f2c29
    a6ad5cb4022b02709b
  `));
  assert.doesNotThrow(() => decipher.final());
  assert.match(new TextDecoder().decode(plain), /^Internet-Drafts are draft documents valid for/);
});

/** Two channels over a socket pair of the loopback interface. */
function withPair(body: (sockets: Sockets, near: SealedChannel, far: SealedChannel) => void): void {
  const sockets = openSockets()!;
  const listener = sockets.listen("127.0.0.1");
  const near = sockets.connect("127.0.0.1", listener.port);
  sockets.poll([{ fd: listener.fd, events: 1 }], 5_000);
  const far = sockets.accept(listener.fd);
  const other = new Uint8Array(32).fill(8);
  try {
    body(
      sockets,
      new SealedChannel(sockets, near, { sends: key, receives: other }),
      new SealedChannel(sockets, far, { sends: other, receives: key }),
    );
  } finally {
    for (const fd of [near, far, listener.fd]) sockets.close(fd);
  }
}

/** Pairs of address and bytes: parts of `memory`, one after the other, of these lengths. */
function places(memory: Uint8Array<ArrayBuffer>, lengths: readonly number[]) {
  let at = addressOf(memory);
  const pairs: bigint[] = [];
  for (const length of lengths) {
    pairs.push(at, BigInt(length));
    at += BigInt(length);
  }
  return BigUint64Array.from(pairs);
}

Deno.test({
  name: "sealed channel: bytes of many places arrive in others, however both are divided",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withPair((_, near, far) => {
      const total = 3 * MAX_RECORD_BYTES + 12_345;
      const source = new Uint8Array(total), destination = new Uint8Array(total);
      for (let i = 0; i < total; i++) source[i] = i * 31 % 251;
      let sent = 0, got = 0;
      const untilMs = performance.now() + PATIENCE_MS;
      while (got < total) {
        assert.ok(performance.now() < untilMs, `${got} of ${total} bytes came`);
        near.flush();
        if (sent < total) {
          const part = source.subarray(sent, sent + 100_000);
          const half = part.length >> 1;
          sent += Math.max(0, near.writeFrom(places(part, [half, part.length - half])));
        }
        const room = destination.subarray(got, got + 7_001);
        got += Math.max(0, far.readInto(places(room, [1, room.length - 1].filter((n) => n > 0))));
      }
      assert.deepEqual(destination, source);
      assert.equal(far.hasBuffered, false);
      assert.equal(far.read(new Uint8Array(1)), -1);
    }),
});

Deno.test({
  name: "sealed channel: a record longer than one can be is refused before it is read",
  ignore: Deno.build.os !== "linux",
  fn: () => {
    const sockets = openSockets()!;
    const listener = sockets.listen("127.0.0.1");
    const near = sockets.connect("127.0.0.1", listener.port);
    sockets.poll([{ fd: listener.fd, events: 1 }], 5_000);
    const fd = sockets.accept(listener.fd);
    const far = new SealedChannel(sockets, fd, { sends: key, receives: key });
    sockets.write(near, Uint8Array.of(255, 255, 255, 127));
    sockets.poll([{ fd, events: 1 }], 5_000);
    assert.throws(() => far.read(new Uint8Array(8)), /a record of 2147483647 bytes/);
    for (const one of [near, fd, listener.fd]) sockets.close(one);
  },
});

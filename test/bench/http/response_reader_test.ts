import assert from "node:assert/strict";
import { ResponseReader } from "../../../src/bench/http/response_reader.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** Reads a response that arrives in pieces of `size` bytes. */
function read(text: string, size: number) {
  let body = "";
  const reader = new ResponseReader((part) => body += new TextDecoder().decode(part));
  const all = bytes(text);
  for (let at = 0; at < all.length; at += size) reader.push(all.subarray(at, at + size));
  return { reader, body: () => body };
}

const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
  "5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\n";

for (const size of [1, 2, 3, 7, 1000]) {
  Deno.test(`a chunked body in pieces of ${size} bytes`, () => {
    const { reader, body } = read(chunked, size);
    assert.deepEqual([reader.isDone, reader.keepsConnection, body()], [true, true, "hello world"]);
  });
}

Deno.test("a body of a length, after an interim answer", () => {
  const text =
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nfull";
  const { reader, body } = read(text, 5);
  assert.deepEqual(
    [reader.head!.status, reader.head!.reason, body()],
    [429, "Too Many Requests", "full"],
  );
});

Deno.test("a body until the end of the connection", () => {
  const { reader, body } = read("HTTP/1.1 200 OK\r\n\r\nall of it", 4);
  assert.equal(reader.isDone, false);
  reader.end();
  assert.deepEqual([reader.isDone, reader.keepsConnection, body()], [true, false, "all of it"]);
});

Deno.test("a connection that is to be closed is not used again", () => {
  const { reader } = read("HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n", 9);
  assert.deepEqual([reader.isDone, reader.keepsConnection], [true, false]);
});

for (
  const [what, text, message] of [
    ["nothing", "", /ended before the answer/],
    ["half a head", "HTTP/1.1 200", /ended before the answer/],
    ["half a body", chunked.slice(0, -9), /ended in the middle of the answer/],
  ] as const
) {
  Deno.test(`a connection that ends after ${what}`, () => {
    assert.throws(() => read(text, 1000).reader.end(), message);
  });
}

for (
  const [what, text, message] of [
    ["no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", /not HTTP\/1.1: "SSH-2.0/],
    ["a length that is no number", "HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\n", /is "-4"/],
    [
      "a chunk without a length",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
      /a chunk has no length/,
    ],
    [
      "a chunk of another length",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n",
      /a chunk has a wrong length/,
    ],
    ["a head without an end", `HTTP/1.1 200 OK\r\nx: ${"y".repeat(70_000)}`, /head .* too long/],
  ] as const
) {
  Deno.test(`refused: ${what}`, () => {
    assert.throws(() => read(text, 1000), message);
  });
}

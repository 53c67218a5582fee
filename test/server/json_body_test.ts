import assert from "node:assert/strict";
import { createGunzip, gzipSync } from "node:zlib";
import { type Harness, withServer } from "./harness.ts";

async function send(
  { url }: Harness,
  path: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
) {
  const response = await fetch(url + path, {
    method: "POST",
    headers,
    body: new Blob([body as BlobPart]),
  });
  const text = await response.text();
  return { status: response.status, text };
}

const gzip = { "content-type": "application/json", "content-encoding": "gzip" };

Deno.test("a gzip body is read as what it decompresses to", () =>
  withServer({}, async (harness) => {
    const body = gzipSync(JSON.stringify({ prompt: "Say: " }));
    const { status, text } = await send(harness, "/v1/completions", body, gzip);
    assert.equal(status, 200, text);
    assert.equal(harness.service.requests.length, 1);
  }));

Deno.test("the decompressed size of a gzip body is bounded", () =>
  withServer({}, async (harness) => {
    const body = gzipSync(JSON.stringify({ prompt: "x".repeat(50_000_000) }));
    assert.ok(body.byteLength < 64 * 1024);
    const { status, text } = await send(harness, "/v1/completions", body, gzip);
    assert.equal(status, 413);
    assert.match(text, /larger than 65536 bytes/);
    assert.equal((await send(harness, "/v1/completions", '{"prompt": "a"}')).status, 200);
  }));

Deno.test("of a gzip body that is too large, little more than allowed is decompressed", () =>
  withServer({}, async (harness) => {
    const body = gzipSync(JSON.stringify({ prompt: "x".repeat(50_000_000) }));
    let bytes = 0;
    const prototype: { push(chunk: Uint8Array | null): boolean } = Object.getPrototypeOf(
      createGunzip(),
    );
    const { push } = prototype;
    prototype.push = function (chunk) {
      bytes += chunk?.length ?? 0;
      return push.call(this, chunk);
    };
    try {
      assert.equal((await send(harness, "/v1/completions", body, gzip)).status, 413);
      // The next answer comes after all work that is left of the first.
      assert.equal((await send(harness, "/v1/completions", '{"prompt": "a"}')).status, 200);
    } finally {
      prototype.push = push;
    }
    assert.ok(bytes < 10_000_000, `${bytes} bytes`);
  }));

Deno.test("a body that is no gzip, or not all of it, is refused", () =>
  withServer({}, async (harness) => {
    const whole = gzipSync(JSON.stringify({ prompt: "x".repeat(1000) }));
    for (const body of ['{"prompt": "a"}', whole.subarray(0, 20)]) {
      const { status, text } = await send(harness, "/v1/completions", body, gzip);
      assert.equal(status, 400);
      assert.match(text, /not valid gzip/);
    }
  }));

Deno.test("a seed keeps its 64 bits", () =>
  withServer({ options: { maxQueuedRequests: 100 } }, async (harness) => {
    const seedOf = async (written: string, path = "/v1/completions") => {
      const { status, text } = await send(harness, path, written);
      assert.equal(status, 200, text);
      return harness.service.requests.at(-1)!.sampling.seed;
    };
    assert.equal(await seedOf('{"prompt": "a", "seed": 7}'), 7);
    assert.equal(await seedOf('{"prompt": "a", "seed" :\n 9223372036854775807}'), 2n ** 63n - 1n);
    assert.equal(await seedOf('{"seed":18446744073709551615,"prompt":"a"}'), 2n ** 64n - 1n);
    assert.equal(await seedOf('{"seed":-9223372036854775808,"prompt":"a"}'), -(2n ** 63n));
    assert.equal(await seedOf('{"seed":1,"prompt":"a","seed":9007199254740993}'), 2n ** 53n + 1n);
    const nested = '{"prompt":"a","metadata":{"seed":9007199254740995},"seed":9007199254740993}';
    assert.equal(await seedOf(nested), 2n ** 53n + 1n);
    for (const seed of ["18446744073709551616", "-9223372036854775809", "1e300", "1.5"]) {
      const { status, text } = await send(
        harness,
        "/v1/completions",
        `{"prompt": "a", "seed": ${seed}}`,
      );
      assert.equal(status, 400, text);
      assert.match(text, /seed must be an integer of at most 64 bits/);
    }
  }));

for (const path of ["/generate", "/generate_benchmark"]) {
  Deno.test(`${path} reads a body of any content type, unless a page of another site sends it`, () =>
    withServer({}, async (harness) => {
      const body = '{"prompt": "a"}';
      const form = { "content-type": "application/x-www-form-urlencoded" };
      assert.equal((await send(harness, path, body, form)).status, 200);
      assert.equal((await send(harness, path, body, { "content-type": "text/plain" })).status, 200);
      const own = { ...form, origin: harness.url };
      assert.equal((await send(harness, path, body, own)).status, 200);
      for (const origin of ["https://elsewhere.example", "null"]) {
        const { status, text } = await send(harness, path, body, { ...form, origin });
        assert.equal(status, 415, text);
      }
    }));
}

for (const path of ["/v1/completions", "/tokenize", "/generate"]) {
  Deno.test(`${path} reads a body without a content type, unless a page of another site sends it`, () =>
    withServer({}, async (harness) => {
      // As `fetch(..., { mode: "no-cors", body: new Blob([...]) })` does, without asking before.
      const body = '{"prompt": "a"}';
      assert.equal((await send(harness, path, body)).status, 200);
      assert.equal((await send(harness, path, body, { origin: harness.url })).status, 200);
      for (const origin of ["https://elsewhere.example", "null"]) {
        const { status, text } = await send(harness, path, body, { origin });
        assert.equal(status, 415, text);
        assert.match(text, /another site sends no Content-Type; send the request as/);
      }
      assert.equal(harness.service.requests.length, path === "/tokenize" ? 0 : 2);
    }));
}

Deno.test("a body of too much structure is refused with its limit, and the connection goes on", () =>
  withServer({ options: { maxBodyBytes: 4 << 20 } }, async (harness) => {
    const bodies: [string, RegExp][] = [
      [`{"prompt":[${Array(1_300_000).fill("[]")}]}`, /more than 16384 arrays and objects/],
      ["[".repeat(1_000_000), /more than 64 deep/],
      [
        `{"messages":[${Array(5000).fill('{"role":"user","content":"x"}')}]}`,
        /messages has 5000 messages; at most 4096 can be rendered/,
      ],
      [`{"prompt":[${Array(2000).fill('"a"')}]}`, /The batch has 2000 prompts; at most 8/],
    ];
    for (const [body, message] of bodies) {
      const path = body.startsWith('{"messages"') ? "/v1/chat/completions" : "/v1/completions";
      const { status, text } = await send(harness, path, body);
      assert.equal(status, 400);
      assert.match(text, message);
    }
    assert.equal((await send(harness, "/v1/completions", '{"prompt": "a"}')).status, 200);
  }));

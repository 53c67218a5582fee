/** What others than the program's own source see of the server. */
import assert from "node:assert/strict";
import { createClient } from "@connectrpc/connect";
import { createFetchClient } from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-connect";
import { shortHash } from "../../../../scripts/bundle/inputs.ts";
import { blockBytes } from "../../../../src/kv/layout.ts";
import { Migration } from "../../../../src/kv/transfer/grpc/migration_pb.ts";
import { contents } from "../../../conformance/kv_pool.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { form, type GrpcEnd, openEnd } from "./support.ts";

const root = new URL("../../../../", import.meta.url).pathname;

async function withEnd(body: (end: GrpcEnd, url: string) => Promise<void>): Promise<void> {
  const end = openEnd("a");
  try {
    await form([end], "secret of the group");
    await body(end, `http://${end.backend.servesAt}`);
  } finally {
    await end.backend.close();
  }
}

/** Null where there is no curl, or one without HTTP/2. */
async function curl(...args: string[]): Promise<string> {
  const command = new Deno.Command("curl", { args: ["--silent", "--max-time", "10", ...args] });
  const { stdout } = await command.output();
  return new TextDecoder().decode(stdout);
}

const curlFeatures = await curl("--version").catch(() => "");
const noCurl = curlFeatures === "" ? " (skipped: no curl)" : "";
const noHttp2 = /\bHTTP2\b/.test(curlFeatures) ? "" : " (skipped: no curl with HTTP/2)";

/** A client as protoc-gen-es generates it, which sends and reads by Connect's own code. */
function generatedClient(baseUrl: string, client: Deno.HttpClient) {
  return createClient(
    Migration,
    createTransport({
      httpClient: createFetchClient((input, init) => fetch(input, { ...init, client })),
      ...{ baseUrl, useBinaryFormat: true, interceptors: [] },
      ...{ acceptCompression: [], sendCompression: null, compressMinBytes: 0 },
      ...{ readMaxBytes: 1 << 20, writeMaxBytes: 1 << 20 },
    }),
  );
}

Deno.test("grpc server: the generated code is that of the .proto", async () => {
  const directory = `${root}src/kv/transfer/grpc`;
  const hash = await shortHash(await Deno.readFile(`${directory}/migration.proto`));
  const code = await Deno.readTextFile(`${directory}/migration_pb.ts`);
  assert.equal(code.split("\n")[0], `// migration.proto ${hash}, by scripts/generate_grpc.ts`);
});

for (const method of ["Health", "Stats"]) {
  Deno.test({
    name: `grpc server: curl asks for ${method} by JSON${noCurl}`,
    ignore: noCurl !== "",
    fn: () =>
      withEnd(async (_, url) => {
        const reply = JSON.parse(
          await curl(
            ...["-H", "content-type: application/json", "-d", "{}"],
            `${url}/llumnix.Migration/${method}`,
          ),
        );
        // proto3 JSON leaves out zeros.
        const expected = { Health: { status: "STATUS_SERVING", instanceId: "a" }, Stats: {} };
        assert.deepEqual(reply, expected[method as keyof typeof expected]);
      }),
  });
}

Deno.test({
  name: `grpc server: a gRPC client over HTTP/2 is told which protocol this is${noHttp2}`,
  ignore: noHttp2 !== "",
  fn: () =>
    withEnd(async (_, url) => {
      const answer = await curl(
        ...["--http2-prior-knowledge", "--include", "-H", "content-type: application/grpc"],
        ...["-H", "te: trailers", "--data-binary", "x", `${url}/llumnix.Migration/Health`],
      );
      assert.match(answer, /^HTTP\/2 200/);
      assert.match(answer, /^content-type: application\/grpc\r$/m);
      assert.match(answer, /^grpc-status: 12\r$/m);
      assert.match(
        answer,
        /^grpc-message: this server speaks the Connect protocol over HTTP\/1.1/m,
      );
    }),
});

Deno.test("grpc server: a generated client writes blocks and reads the statistics", () =>
  withEnd(async ({ backend, pool }, url) => {
    using http = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
    const client = generatedClient(url, http);
    const before = await contents(pool);
    await backend.grant("m", [3, 5]);
    const data = new Uint8Array(2 * blockBytes(suiteLayout)).map((_, i) => i);
    async function* messages() {
      yield { start: { migrationId: "m", from: "b", to: "a" } };
      const { numLayers } = suiteLayout;
      await Promise.resolve();
      yield { blocks: [5, 3], firstLayer: 0, numLayers, data };
    }
    const headers = { authorization: "Bearer secret of the group" };
    const { bytes } = await client.write(messages(), { headers });
    assert.equal(bytes, BigInt(data.length));
    const half = data.length / 2;
    before[5] = data.slice(0, half), before[3] = data.slice(half);
    assert.deepEqual(await contents(pool), before);
    const { writesReceived, writesFailed, bytesReceived } = await client.stats({});
    assert.deepEqual([writesReceived, writesFailed, bytesReceived], [1n, 0n, bytes]);
    await assert.rejects(client.write(messages()), { code: 16 }); // unauthenticated
    await assert.rejects(client.write(messages(), { headers: { authorization: "Bearer x" } }), {
      rawMessage: "the caller is not in this instance's migration group",
    });
  }));

Deno.test("grpc server: what is no stream of the protocol is refused, and writes nothing", () =>
  withEnd(async ({ backend, pool }, url) => {
    using http = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
    const client = generatedClient(url, http);
    const headers = { authorization: "Bearer secret of the group" };
    const before = await contents(pool);
    await backend.grant("m", [1]);
    const start = { migrationId: "m", from: "b", to: "a" };
    const { numLayers } = suiteLayout;
    const data = new Uint8Array(blockBytes(suiteLayout));
    const refuses = async (messages: Parameters<typeof client.write>[0], message: RegExp) =>
      await assert.rejects(client.write(messages, { headers }), { rawMessage: message });
    type Message = {
      start?: typeof start;
      blocks?: number[];
      numLayers?: number;
      data?: typeof data;
    };
    async function* stream(...messages: Message[]) {
      for (const message of messages) {
        await Promise.resolve();
        yield message;
      }
    }
    await refuses(stream(), /^Write has no (body|message)$/);
    await refuses(
      stream({ blocks: [1], numLayers, data }),
      /the first message of Write has no start/,
    );
    await refuses(stream({ start: { ...start, to: "c" } }), /^a listens where c was expected$/);
    await refuses(stream({ start }, { blocks: [1 << 20], numLayers, data }), /block/);
    await refuses(stream({ start }, { blocks: [1], numLayers: 99, data }), /layer/);
    await refuses(stream({ start }, { blocks: [1], numLayers: 1, data }), /bytes for 1 blocks of/);
    await refuses(stream({ start }, { blocks: [2], numLayers, data }), /block 2 is not granted/);
    const large = new Uint8Array(900 << 10);
    await refuses(
      stream({ start }, { blocks: [1], numLayers, data: large }),
      /a message of more than/,
    );
    for (const body of ["x", "\x01\0\0\0\x01x", "\0\0\0\0\x05ab", "\0\0\0\0\x02\xff\xff"]) {
      const response = await fetch(`${url}/llumnix.Migration/Write`, {
        method: "POST",
        headers: { ...headers, "content-type": "application/connect+proto" },
        body: Uint8Array.from(body, (character) => character.charCodeAt(0)),
        client: http,
      });
      assert.match(
        await response.text(),
        /"error":\{"code":"(unavailable|invalid_argument)"/,
        body,
      );
    }
    assert.deepEqual(await contents(pool), before);
  }));

Deno.test("grpc server: other paths, methods and content types are refused", () =>
  withEnd(async (_, url) => {
    const status = async (path: string, init: RequestInit) => {
      const response = await fetch(url + path, init);
      await response.body?.cancel();
      return response.status;
    };
    const json = { "content-type": "application/json" };
    assert.equal(await status("/", { method: "POST", headers: json, body: "{}" }), 404);
    const write = "/llumnix.Migration/Write";
    assert.equal(await status(write, { method: "POST", headers: json, body: "{}" }), 415);
    assert.equal(await status(write, {}), 415);
    const health = "/llumnix.Migration/Health";
    assert.equal(await status(health, { method: "PUT", headers: json, body: "{}" }), 405);
    assert.equal(await status(health, { method: "POST", headers: json, body: "{" }), 400);
  }));

Deno.test({
  name: "grpc server: silent connections are bounded, and a call under way goes on",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withEnd(async (_, url) => {
      const { hostname, port } = new URL(url);
      const open = () => Deno.connect({ hostname, port: Number(port) });
      const call = await open();
      const head = "POST /llumnix.Migration/Write HTTP/1.1\r\nhost: x\r\n" +
        "content-type: application/connect+proto\r\nauthorization: Bearer secret of the group\r\n" +
        "transfer-encoding: chunked\r\n\r\n";
      await call.write(new TextEncoder().encode(head));
      let answer: number | null | undefined;
      const answered = call.read(new Uint8Array(4096)).then((read) => answer = read);
      const silent = await Promise.all(Array.from({ length: 80 }, open));
      const ends = silent.map((one) => one.read(new Uint8Array(1)));
      // The first 16 that the server ends.
      const { promise, resolve } = Promise.withResolvers<void>();
      let count = 0;
      for (const end of ends) {
        end.then(() => ++count === 16 && resolve(), () => ++count === 16 && resolve());
      }
      await promise;
      assert.equal(answer, undefined, "the call was ended too");
      // An empty body is an answer's cause: the call was served all the time.
      await call.write(new TextEncoder().encode("0\r\n\r\n"));
      await answered;
      assert.ok((answer ?? 0) > 0);
      for (const one of [call, ...silent]) one.close();
      await Promise.allSettled(ends);
    }),
});

import assert from "node:assert/strict";
import { realClock } from "../../src/core/clock.ts";
import { ClusterFeed } from "../../src/server/feed/cluster_feed.ts";
import { FakeCluster } from "./feed/_fake_cluster.ts";
import { type Harness, withServer } from "./harness.ts";

const page = "https://page.example";

async function ask({ url }: Harness, method: string, headers: Record<string, string>) {
  const response = await fetch(`${url}/v1/models`, { method, headers });
  await response.body?.cancel();
  return response;
}

function corsHeaders(response: Response): Record<string, string> {
  const names = [...response.headers.keys()].filter((name) => name.startsWith("access-control-"));
  return Object.fromEntries(names.map((name) => [name, response.headers.get(name)!]));
}

const preflight = {
  origin: page,
  "access-control-request-method": "POST",
  "access-control-request-headers": "authorization, content-type",
};

Deno.test("by default pages of other sites get nothing", () =>
  withServer({}, async (harness) => {
    const response = await ask(harness, "GET", { origin: page });
    assert.equal(response.status, 200);
    assert.deepEqual(corsHeaders(response), {});
    assert.equal((await ask(harness, "OPTIONS", preflight)).status, 400);
  }));

Deno.test("pages of allowed origins may read answers, also refusals", () =>
  withServer({ options: { allowedOrigins: `["${page}"]` }, apiKeys: ["k"] }, async (harness) => {
    const response = await ask(harness, "GET", { origin: page });
    assert.equal(response.status, 401);
    assert.equal(response.headers.get("access-control-allow-origin"), page);
    assert.equal(response.headers.get("vary"), "Origin");
    assert.deepEqual(
      corsHeaders(await ask(harness, "GET", { origin: "https://other.example" })),
      {},
    );
    const allowed = await ask(harness, "OPTIONS", preflight);
    assert.equal(allowed.status, 204);
    assert.deepEqual(corsHeaders(allowed), {
      "access-control-allow-origin": page,
      "access-control-allow-methods": "POST",
      "access-control-allow-headers": "authorization, content-type",
      "access-control-max-age": "600",
      "access-control-expose-headers": "x-request-id, x-resume-id, retry-after",
    });
  }));

Deno.test("methods, headers and credentials are those of the options", () => {
  const options = {
    allowedOrigins: '["*"]',
    allowedMethods: '["GET"]',
    allowedHeaders: '["authorization"]',
    allowCredentials: true,
  };
  return withServer({ options, apiKeys: ["k"] }, async (harness) => {
    assert.equal((await ask(harness, "OPTIONS", preflight)).status, 400);
    const get = { ...preflight, "access-control-request-method": "GET" };
    const headers = corsHeaders(await ask(harness, "OPTIONS", get));
    assert.equal(headers["access-control-allow-origin"], page); // browsers refuse * with credentials
    assert.equal(headers["access-control-allow-credentials"], "true");
    assert.equal(headers["access-control-allow-headers"], "authorization");
  });
});

Deno.test("a stream has the headers as well", () =>
  withServer({ options: { allowedOrigins: '["*"]' } }, async ({ post }) => {
    const { headers } = await post("/v1/completions", { prompt: "a", stream: true }, {
      origin: page,
    });
    assert.equal(headers.get("access-control-allow-origin"), "*");
  }));

Deno.test("an option that is no list of origins is refused at start", async () => {
  for (const allowedOrigins of ['"*"', "[1]", "{}"]) {
    await assert.rejects(
      withServer({ options: { allowedOrigins } }, () => Promise.resolve()),
      /^UsageError: --allowed-origins .*: expected a JSON array of strings/,
    );
  }
});

Deno.test("a page of another site does not get in by giving its own name this host's address", async () => {
  /** The status of what a browser sends for such a page: name and origin are the page's. */
  const status = async (harness: Harness, origin: string) => {
    const { host } = new URL(origin);
    const { hostname, port } = new URL(harness.url);
    using conn = await Deno.connect({ hostname, port: Number(port) });
    const body = '{"prompt": "x", "max_tokens": 1}';
    await conn.write(
      new TextEncoder().encode(
        `POST /v1/completions HTTP/1.1\r\nhost: ${host}\r\norigin: ${origin}\r\nconnection: close\r\n` +
          `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      ),
    );
    const answer = await new Response(conn.readable).text();
    return Number(answer.split(" ")[1]);
  };
  await withServer({}, async (harness) => {
    assert.equal(await status(harness, "http://evil.example:8000"), 403);
    for (const name of ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"]) {
      assert.equal(await status(harness, `http://${name}`), 200, name);
    }
  });
  const allowed = { options: { allowedOrigins: '["https://page.example"]' } };
  await withServer(allowed, async (harness) => {
    assert.equal(await status(harness, page), 200);
  });
});

Deno.test("a page under a name that is not this host's does not get the feed, whose GET has no origin", async () => {
  const status = async (harness: Harness, host: string) => {
    const { hostname, port } = new URL(harness.url);
    using conn = await Deno.connect({ hostname, port: Number(port) });
    const head = `HEAD /page/feed HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`;
    await conn.write(new TextEncoder().encode(head));
    return Number((await new Response(conn.readable).text()).split(" ")[1]);
  };
  const feed = () =>
    new ClusterFeed(new FakeCluster(), realClock, { version: "1", model: "m", hasAdmin: false });
  await withServer({ feed: feed() }, async (harness) => {
    assert.equal(await status(harness, "evil.example:8000"), 403);
    for (const name of ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"]) {
      assert.equal(await status(harness, name), 200, name);
    }
  });
  await withServer(
    { feed: feed(), options: { allowedOrigins: `["${page}"]` } },
    async (harness) => {
      assert.equal(await status(harness, "page.example"), 200);
    },
  );
});

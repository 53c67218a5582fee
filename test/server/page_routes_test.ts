import assert from "node:assert/strict";
import { realClock } from "../../src/core/clock.ts";
import { ClusterFeed } from "../../src/server/feed/cluster_feed.ts";
import { FakeCluster } from "./feed/_fake_cluster.ts";
import { withServer } from "./harness.ts";

function makeFeed(): ClusterFeed {
  const names = { version: "1", model: "m", hasAdmin: false };
  return new ClusterFeed(new FakeCluster(), realClock, names);
}

Deno.test("the page needs no key, loads nothing from elsewhere and runs no script in the text", () =>
  withServer({ apiKeys: ["key"] }, async ({ url }) => {
    const response = await fetch(`${url}/`);
    const text = await response.text();
    assert.equal(response.status, 200);
    const policy = response.headers.get("content-security-policy")!;
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; /);
    assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    assert.doesNotMatch(text, /<script>|<style|\son\w+=|style=|https?:\/\/(?!www\.w3\.org)/);
    const names = [...text.matchAll(/(?:src|href)="(page\/[^"]+)"/g)].map(([, name]) => name);
    assert.ok(names.includes("page/main.js"), names.join());
    for (const name of names) {
      const file = await fetch(`${url}/${name}`);
      assert.equal(file.status, 200, name);
      assert.ok((await file.text()).length > 100, name);
    }
  }));

Deno.test("every script of the page is served", () =>
  withServer({}, async ({ url }) => {
    const seen = new Set(["main.js"]);
    for (const name of seen) {
      const response = await fetch(`${url}/page/${name}`);
      assert.equal(response.status, 200, name);
      assert.equal(response.headers.get("content-type"), "text/javascript; charset=utf-8");
      for (const [, next] of (await response.text()).matchAll(/ from "\.\/([\w.]+)"/g)) {
        seen.add(next);
      }
    }
    const folder = `${import.meta.dirname}/../../src/page`;
    const written = [...Deno.readDirSync(folder)].map(({ name }) => name)
      .filter((name) => name.endsWith(".js"));
    assert.deepEqual([...seen].sort(), written.sort());
  }));

Deno.test("a browser that has a file is told so; a file that is not there is named", () =>
  withServer({}, async ({ url }) => {
    const first = await fetch(`${url}/page/style.css`);
    await first.text();
    const headers = { "if-none-match": first.headers.get("etag")! };
    const second = await fetch(`${url}/page/style.css`, { headers });
    assert.deepEqual([second.status, await second.text()], [304, ""]);
    const missing = await fetch(`${url}/page/..%2f..%2fdeno.json`);
    assert.equal(missing.status, 404);
    assert.match((await missing.json()).error.message, /^The page has no file "/);
  }));

Deno.test("links of the page begin with --root-path", () =>
  withServer({ options: { rootPath: '/llm"x' } }, async ({ url }) => {
    const text = await (await fetch(`${url}/`)).text();
    assert.ok(text.includes('<base href="/llm&#34;x/"'), text.slice(0, 200));
  }));

Deno.test("the feed needs a key, and its readers are bounded", async () => {
  const feed = makeFeed();
  await withServer({ apiKeys: ["key"], feed }, async ({ url }) => {
    assert.equal((await (await fetch(`${url}/page/feed`)).json()).error.code, "invalid_api_key");
    const headers = { authorization: "Bearer key" };
    const response = await fetch(`${url}/page/feed`, { headers });
    assert.equal(response.headers.get("content-type"), "text/event-stream");
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    assert.match((await reader.read()).value!, /^event: state\ndata: \{/);
    const address = "127.0.0.1";
    while (feed.hasPlaceFor(address)) feed.open({ congested: false, push() {}, end() {} }, address);
    const refused = await fetch(`${url}/page/feed`, { headers });
    assert.equal(refused.status, 429);
    assert.match(
      (await refused.json()).error.message,
      /64 pages of this server are open, .* Close one/,
    );
    await reader.cancel();
  });
});

Deno.test("a server that gives way to its successor does not wait for pages", async () => {
  await withServer({ feed: makeFeed() }, async ({ url, server }) => {
    const response = await fetch(`${url}/page/feed`);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    assert.match((await reader.read()).value!, /^event: state/);
    const givenWay = server.giveWay();
    while (!(await reader.read()).done);
    await givenWay;
  });
});

Deno.test("a server that stops does not wait for pages", async () => {
  await withServer({ feed: makeFeed() }, async ({ url, server }) => {
    const response = await fetch(`${url}/page/feed`);
    const text = response.text();
    const stopped = server.shutdown(60_000);
    assert.doesNotMatch(await text, /event: error/);
    await stopped;
  });
});

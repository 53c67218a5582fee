/** Where the page keeps its secrets: it runs here with a stand-in for its address. */
import assert from "node:assert/strict";

interface Access {
  secret(which: "key" | "token"): string | null;
  keepSecret(which: "key" | "token", value: string | null): void;
}

/** The page's module, as a page at an address loads it. */
async function pageAt(href: string): Promise<Access> {
  Object.defineProperty(globalThis, "location", { value: { href }, configurable: true });
  const source = new URL("../../src/page/access.js", import.meta.url).href;
  return await import(`${source}?at=${encodeURIComponent(href)}`);
}

Deno.test("page: the key of one service is not another's at the same origin, and the token is not stored", async () => {
  sessionStorage.clear();
  const one = await pageAt("https://gpu.example/llm/one/?x#y");
  const other = await pageAt("https://gpu.example/llm/other/index.html");
  one.keepSecret("key", "key of one");
  one.keepSecret("token", "token of one");
  assert.deepEqual([one.secret("key"), one.secret("token")], ["key of one", "token of one"]);
  assert.deepEqual([other.secret("key"), other.secret("token")], [null, null]);
  assert.deepEqual({ ...sessionStorage }, { "llumnix-api-key /llm/one/": "key of one" });
  other.keepSecret("key", "key of another");
  one.keepSecret("key", null);
  one.keepSecret("token", null);
  assert.deepEqual([one.secret("key"), one.secret("token")], [null, null]);
  assert.equal(other.secret("key"), "key of another");
  sessionStorage.clear();
});

import assert from "node:assert/strict";
import { gauge } from "../../src/metrics/family.ts";
import { MetricsServer } from "../../src/roles/metrics_server.ts";

const place = { host: "127.0.0.1", port: 0 };
const families = () => [gauge("x", "X.", [{ labels: {}, value: 1 }])];

Deno.test("metrics server: /metrics and /health, and nothing else", async () => {
  const server = await MetricsServer.listen(place, families);
  const url = `http://127.0.0.1:${server.port}`;
  try {
    const answer = await fetch(`${url}/metrics?x=1`);
    assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert.match(await answer.text(), /^x 1$/m);
    assert.equal(await (await fetch(`${url}/health`)).text(), "");
    for (const [method, path] of [["GET", "/"], ["POST", "/metrics"], ["GET", "/metrics/x"]]) {
      const other = await fetch(url + path, { method });
      assert.equal(other.status, 404, `${method} ${path}`);
      assert.match(await other.text(), /GET \/metrics/);
    }
    const head = await fetch(`${url}/metrics`, { method: "HEAD" });
    assert.deepEqual([head.status, await head.text()], [200, ""]);
  } finally {
    await server.close();
    await server.close();
  }
  await assert.rejects(fetch(`${url}/health`));
});

Deno.test("metrics server: a port in use is told with its option", async () => {
  const server = await MetricsServer.listen(place, families);
  try {
    const { port } = server;
    await assert.rejects(
      MetricsServer.listen({ ...place, port }, families),
      new RegExp(`--metrics-port ${port} at 127\\.0\\.0\\.1 cannot be used .*; choose another`),
    );
  } finally {
    await server.close();
  }
});

Deno.test("metrics server: readers that send nothing leave room for one that does", async () => {
  const server = await MetricsServer.listen(place, families);
  const { port } = server;
  const silent: Deno.TcpConn[] = [];
  try {
    for (let i = 0; i < 10; i++) silent.push(await Deno.connect({ hostname: "127.0.0.1", port }));
    assert.match(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text(), /^x 1$/m);
  } finally {
    for (const connection of silent) connection.close();
    await server.close();
  }
});

Deno.test("metrics server: metrics that cannot be read are a 500, and the process goes on", async () => {
  const server = await MetricsServer.listen(place, () => {
    throw new Error("on purpose");
  });
  try {
    const answer = await fetch(`http://127.0.0.1:${server.port}/metrics`);
    assert.equal(answer.status, 500);
    assert.match(await answer.text(), /see the log/);
    assert.equal(await (await fetch(`http://127.0.0.1:${server.port}/health`)).text(), "");
  } finally {
    await server.close();
  }
});

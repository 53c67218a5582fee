/** Connections of processes that are of no cluster. */
import assert from "node:assert/strict";
import { HttpCall } from "../../../../src/kv/transfer/grpc/http_call.ts";
import { hostSecurity } from "../../../../src/roles/host_security.ts";
import { VirtualClock } from "../../../../src/sim/clock/virtual_clock.ts";
import { PATIENCE_MS, until, within } from "../../../patience.ts";
import { openEnd } from "./support.ts";

const ignore = Deno.build.os !== "linux";
const healthPath = "/llumnix.Migration/Health";

async function healthOf(port: number): Promise<number> {
  using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  const response = await fetch(`http://127.0.0.1:${port}${healthPath}`, {
    ...{ method: "POST", headers: { "content-type": "application/json" }, body: "{}", client },
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  await response.body?.cancel();
  return response.status;
}

Deno.test({
  name: "grpc strangers: more connections than the process has descriptors do not end it",
  ignore,
  async fn() {
    const script = new URL("./_server_process.ts", import.meta.url).pathname;
    const command = `ulimit -n 150; exec "${Deno.execPath()}" run -A --no-check "${script}"`;
    await using child = new Deno.Command("sh", {
      args: ["-c", command],
      ...{ stdin: "piped", stdout: "piped", stderr: "null" },
    }).spawn();
    const reader = child.stdout.getReader();
    const port = Number(
      /port (\d+)/.exec(new TextDecoder().decode((await reader.read()).value))![1],
    );
    const address = { hostname: "127.0.0.1", port };
    const opened = await Promise.allSettled(
      Array.from({ length: 300 }, () => Deno.connect(address)),
    );
    const isWell = async () => await healthOf(port).catch(() => 0) === 200;
    await until(isWell, "it answers", 250);
    for (const result of opened) if (result.status === "fulfilled") result.value.close();
    await child.stdin.close();
    await reader.cancel();
  },
});

Deno.test("grpc strangers: a request whose body does not come is answered at a time limit", async () => {
  const clock = new VirtualClock();
  const { backend } = openEnd("a", { clock });
  const { port } = backend.endpoint;
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(new TextEncoder().encode(
      `POST ${healthPath} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n` +
        "content-length: 2\r\n\r\n",
    ));
    const answer = connection.read(new Uint8Array(64));
    let isAnswered = false;
    answer.then(() => isAnswered = true, () => {});
    for (let turn = 0; turn < 3_000 && !isAnswered; turn++) {
      let isOver = false;
      clock.after(100, () => isOver = true);
      await clock.runUntil(() => isOver);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.ok(isAnswered, "no answer in five minutes of the clock");
  } finally {
    await backend.close();
  }
});

Deno.test("grpc strangers: a call that is aborted as it begins TLS leaves no connection", async () => {
  const security = (await hostSecurity(new Uint8Array(32).fill(1), "10.0.0.1"))!;
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const accepted = listener.accept();
  const abort = new AbortController();
  const { startTls } = Deno;
  try {
    Deno.startTls = (...args) => {
      abort.abort();
      return startTls(...args);
    };
    const opening = HttpCall.open(
      ...[{ host: "127.0.0.1", port }, healthPath, {}, abort.signal, security] as const,
    );
    using server = await accepted;
    await assert.rejects(opening, /it was aborted/);
    await within(readToEnd(server), "the connection ends");
  } finally {
    Deno.startTls = startTls;
  }
});

async function readToEnd(connection: Deno.Conn): Promise<void> {
  const chunk = new Uint8Array(4096);
  while (await connection.read(chunk).catch(() => null) !== null);
}

import assert from "node:assert/strict";
import process from "node:process";
import { closeAt } from "../../src/bus/closing.ts";
import { SocketBus } from "../../src/bus/socket_bus.ts";
import { anyProtocol, rejection } from "../conformance/bus.ts";

/** What the runtime warns of while something is done. */
async function warningsOf(work: () => Promise<unknown>): Promise<string[]> {
  const warnings: string[] = [];
  const note = ({ name }: Error) => void warnings.push(name);
  process.on("warning", note);
  try {
    await work();
    await new Promise((resolve) => setTimeout(resolve, 5)); // a warning comes in a later turn
    return warnings;
  } finally {
    process.off("warning", note);
  }
}

Deno.test("closing: a deadline that is over closes at once, without a negative timer", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = listener.accept();
  const conn = await Deno.connect({ port: listener.addr.port });
  const warnings = await warningsOf(async () => {
    closeAt(performance.now() - 1_000, conn);
    assert.equal(await (await accepted).read(new Uint8Array(1)), null);
  });
  assert.deepEqual(warnings, []);
  (await accepted).close();
  listener.close();
});

Deno.test("bus: a connection whose time is over before it dials has no negative timer", async () => {
  const bus = new SocketBus(anyProtocol, undefined, crypto.getRandomValues(new Uint8Array(32)));
  const warnings = await warningsOf(async () => {
    // The first connection loads TLS, which takes longer.
    const error = await rejection(bus.connect("tcp:127.0.0.1:9", {}, { timeoutMs: 0.01 }));
    assert.match(error.message, /cannot connect to tcp:127\.0\.0\.1:9/);
  });
  assert.deepEqual(warnings, []);
});

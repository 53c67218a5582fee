/** Operators' calls need the admin token on every way in, the bus too. */
import assert from "node:assert/strict";
import { openBus } from "../../src/bus/open_bus.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import { realClock } from "../../src/core/clock.ts";
import { operatorProof } from "../../src/core/operator_proof.ts";
import { Manager } from "../../src/manager/manager.ts";
import { rejection } from "../conformance/bus.ts";
import { managerOptions } from "./support.ts";

const TOKEN = "operators only";

/** Over TCP nobody knows which process is at the other end. */
async function withManager(
  adminToken: string | null,
  body: (address: string) => Promise<void>,
): Promise<void> {
  const port = (() => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    return listener.addr.port;
  })();
  const address = `tcp:127.0.0.1:${port}`;
  const manager = await Manager.listen({
    bus: openBus({ clusterKey: "insecure" }),
    addresses: [address],
    options: managerOptions,
    adminToken,
    launcher: { launch: () => Promise.reject(new Error("nothing is launched here")) },
    clock: realClock,
  });
  try {
    await body(address);
  } finally {
    await manager.stop();
  }
}

async function withClient(
  address: string,
  adminToken: string | undefined,
  body: (client: ClusterClient) => Promise<void>,
): Promise<void> {
  const client = await ClusterClient.connect({
    bus: openBus({ clusterKey: "insecure" }),
    managerAddress: address,
    frontendId: "f",
    clock: realClock,
    adminToken,
  });
  try {
    await body(client);
  } finally {
    await client.close();
  }
}

Deno.test("operators: an API server with the manager's token operates it", () =>
  withManager(TOKEN, (address) =>
    withClient(address, TOKEN, async (client) => {
      assert.deepEqual(await client.admin("admin_instances", null), []);
      assert.deepEqual(await client.admin("admin_instances", null), [], "proved once");
    })));

Deno.test("operators: another token, or none, is refused with what to do", async () => {
  await withManager(TOKEN, async (address) => {
    await withClient(address, "guess", async (client) => {
      const error = await rejection(client.admin("admin_instances", null));
      assert.equal(error.kind, "conflict");
      assert.match(error.message, /the manager has another admin token: give it and/);
    });
    await withClient(address, undefined, async (client) => {
      const error = await rejection(client.admin("admin_instances", null));
      assert.match(error.message, /need a proof of the admin token first/);
    });
  });
  await withManager(null, (address) =>
    withClient(address, TOKEN, async (client) => {
      const error = await rejection(client.admin("admin_add", null));
      assert.match(error.message, /the manager has no admin token: start it with/);
    }));
});

Deno.test("operators: a proof is good once, and for its own connection", () =>
  withManager(TOKEN, async (address) => {
    const bus = openBus({ clusterKey: "insecure" });
    const first = await bus.connect(address, {}), second = await bus.connect(address, {});
    const { data: { challenge } } = await first.call("operator_challenge", { data: null });
    const proof = { data: { proof: operatorProof(TOKEN, challenge) } };
    await second.call("operator_challenge", { data: null });
    assert.equal((await rejection(second.call("operator_prove", proof))).kind, "conflict");
    await first.call("operator_prove", proof);
    assert.deepEqual((await first.call("admin_instances", { data: null })).data, []);
    assert.equal((await rejection(first.call("operator_prove", proof))).kind, "conflict");
    assert.equal(
      (await rejection(second.call("admin_instances", { data: null }))).kind,
      "conflict",
    );
    await first.close();
    await second.close();
  }));

Deno.test("operators: calls at the same time share one proof", () =>
  withManager(TOKEN, (address) =>
    withClient(address, TOKEN, async (client) => {
      const calls = Array.from({ length: 5 }, () => client.admin("admin_instances", null));
      for (const answer of await Promise.all(calls)) assert.deepEqual(answer, []);
    })));

Deno.test("operators: guessing over the bus is slowed down, also over new connections, and bounded", () =>
  withManager(TOKEN, async (address) => {
    const bus = openBus({ clusterKey: "insecure" });
    /** A guess that is ready to be sent; resolves with the kind of error, "" for none. */
    const guess = async (token: string) => {
      const peer = await bus.connect(address, {});
      const { data: { challenge } } = await peer.call("operator_challenge", { data: null });
      const proof = operatorProof(token, challenge);
      return async (): Promise<string> => {
        const kind = await peer.call("operator_prove", { data: { proof } })
          .then(() => "", (error) => error.kind);
        await peer.close();
        return kind;
      };
    };
    for (let i = 0; i < 10; i++) assert.equal(await (await guess(`guess ${i}`))(), "conflict");
    const guesses = await Promise.all(Array.from({ length: 40 }, (_, i) => guess(`more ${i}`)));
    const startMs = performance.now();
    const kinds = await Promise.all(guesses.map((send) => send()));
    assert.ok(performance.now() - startMs >= 950, "no guess had to wait");
    assert.ok(kinds.every((kind) => kind === "conflict" || kind === "overloaded"), `${kinds}`);
    assert.ok(kinds.includes("overloaded"), `${kinds}`);
    const laterMs = performance.now();
    assert.equal(await (await guess(TOKEN))(), "");
    assert.ok(performance.now() - laterMs >= 950, "the right one shows by its time");
  }));

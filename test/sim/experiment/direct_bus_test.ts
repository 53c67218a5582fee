import assert from "node:assert/strict";
import type { AnyService } from "../../../src/bus/transport.ts";
import { sleep } from "../../../src/core/clock.ts";
import { OverloadedError } from "../../../src/core/errors.ts";
import { DirectNetwork } from "../../../src/sim/experiment/direct_bus.ts";
import { ExperimentLoop } from "../../../src/sim/experiment/experiment_loop.ts";

const ADDRESS = "inproc:test";

function network() {
  const loop = new ExperimentLoop();
  const { clock } = loop;
  const direct = new DirectNetwork({ clock, delayMs: 2, onSettled: loop.noteSettled });
  return { loop, clock, server: direct.node(), client: direct.node() };
}

/** Runs `body` on the loop's virtual time. */
async function finish(loop: ExperimentLoop, body: Promise<void>): Promise<void> {
  let isDone = false;
  const ended = body.finally(() => {
    isDone = true;
    loop.noteSettled();
  });
  ended.catch(() => {});
  await loop.runUntil(() => isDone);
  await ended;
}

Deno.test("a call takes a delay in both directions, and a handler's time", async () => {
  const { loop, clock, server, client } = network();
  const service: AnyService = {
    calls: {
      twice: ({ data }) => ({ data: 2 * (data as number) }),
      slow: async () => {
        await sleep(loop.settlingClock(), 100);
        return { data: "done" };
      },
    },
  };
  await finish(
    loop,
    (async () => {
      await server.listen(ADDRESS, service);
      const peer = await client.connect(ADDRESS, {});
      assert.deepEqual(await peer.call("twice", { data: 21 }), { data: 42 });
      assert.equal(clock.nowMs(), 4);
      assert.deepEqual(await peer.call("slow", { data: null }), { data: "done" });
      assert.equal(clock.nowMs(), 108);
      assert.equal(client.callsInFlight + server.callsInFlight, 0);
    })(),
  );
});

Deno.test("errors keep their kind; unknown calls and late answers are errors", async () => {
  const { loop, clock, server, client } = network();
  const service: AnyService = {
    calls: {
      full: () => {
        throw new OverloadedError("no room");
      },
      never: () => new Promise(() => {}),
    },
  };
  await finish(
    loop,
    (async () => {
      await server.listen(ADDRESS, service);
      const peer = await client.connect(ADDRESS, {});
      await assert.rejects(peer.call("full", { data: null }), OverloadedError);
      await assert.rejects(peer.call("missing", { data: null }), /no call "missing"/);
      const sinceMs = clock.nowMs();
      await assert.rejects(peer.call("never", { data: null }, { timeoutMs: 50 }), /no answer/);
      assert.equal(clock.nowMs() - sinceMs, 50);
      await assert.rejects(client.connect("inproc:nobody", {}), /nobody listens/);
    })(),
  );
});

Deno.test("messages arrive in their order, also notifications behind calls", async () => {
  const { loop, server, client } = network();
  const seen: string[] = [];
  const service: AnyService = {
    calls: {
      call: () => {
        seen.push("call");
        return { data: null };
      },
    },
    notifications: { note: ({ data }) => void seen.push(data as string) },
  };
  await finish(
    loop,
    (async () => {
      await server.listen(ADDRESS, service);
      const peer = await client.connect(ADDRESS, {});
      peer.notify("note", { data: "first" });
      assert.deepEqual(seen, ["first"]);
      const answer = peer.call("call", { data: null });
      peer.notify("note", { data: "last" });
      await answer;
      assert.deepEqual(seen, ["first", "call", "last"]);
    })(),
  );
});

Deno.test("a closed connection ends its calls and tells both ends", async () => {
  const { loop, server, client } = network();
  const closed: string[] = [];
  await finish(
    loop,
    (async () => {
      const listener = await server.listen(ADDRESS, {
        calls: { never: () => new Promise(() => {}) },
        onClose: () => closed.push("server"),
      });
      const peer = await client.connect(ADDRESS, { onClose: () => closed.push("client") });
      const call = peer.call("never", { data: null });
      call.catch(() => {});
      await listener.close();
      await assert.rejects(call, /closed/);
      assert.deepEqual(closed.sort(), ["client", "server"]);
      assert.equal(peer.isOpen, false);
      await assert.rejects(peer.call("never", { data: null }), /closed/);
    })(),
  );
});

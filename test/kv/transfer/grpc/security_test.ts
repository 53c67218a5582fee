/** What a grpc server is to strangers when connections between instances leave the host. */
import assert from "node:assert/strict";
import { realClock } from "../../../../src/core/clock.ts";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { STREAM_TYPE } from "../../../../src/kv/transfer/grpc/server.ts";
import { HttpCall } from "../../../../src/kv/transfer/grpc/http_call.ts";
import type { HostSecurity } from "../../../../src/kv/transfer/backend_kind.ts";
import { hostSecurity } from "../../../../src/roles/host_security.ts";
import { contents, fill } from "../../../conformance/kv_pool.ts";
import { form, type GrpcEnd, membersOf, openEnd } from "./support.ts";

const key = (byte: number) => new Uint8Array(32).fill(byte);
const ours = (await hostSecurity(key(1), "10.0.0.1"))!;
const theirs = (await hostSecurity(key(2), "10.0.0.1"))!;
const blocks = [1, 3];

Deno.test("host security: only of connections that leave the host, and unless it is switched off", async () => {
  for (const host of [null, "127.0.0.1", "::1"]) {
    assert.equal(await hostSecurity(key(1), host), null);
  }
  assert.equal(await hostSecurity("insecure", "10.0.0.1"), null);
  assert.equal(ours.authority, (await hostSecurity(key(1), "10.0.0.2"))!.authority);
  assert.equal(ours.token, (await hostSecurity(key(1), "10.0.0.2"))!.token);
  assert.notEqual(ours.token, theirs.token);
});

async function withEnds(body: (a: GrpcEnd, b: GrpcEnd) => Promise<void>, b = ours): Promise<void> {
  const ends = [openEnd("a", { security: ours }), openEnd("b", { security: b })];
  try {
    await body(ends[0], ends[1]);
  } finally {
    for (const { backend } of ends) await backend.close();
  }
}

function send(from: GrpcEnd, to: GrpcEnd) {
  return from.backend.send({
    migrationId: "m",
    destination: { instanceId: to.instanceId, address: "" },
    endpoint: to.backend.endpoint,
    sourceBlocks: blocks,
    destinationBlocks: blocks,
    deadlineMs: realClock.nowMs() + 30_000,
  }, new AbortController().signal);
}

Deno.test("grpc security: members of a cluster exchange blocks by TLS", () =>
  withEnds(async (a, b) => {
    assert.deepEqual(await form([a, b]), [[], []]);
    await fill(a.pool, 1);
    await b.backend.grant("m", blocks);
    await send(a, b);
    const [sent, received] = [await contents(a.pool), await contents(b.pool)];
    for (const block of blocks) assert.deepEqual(received[block], sent[block]);
  }));

Deno.test("grpc security: an instance of another cluster is no member, and is sent nothing", () =>
  withEnds(async (a, b) => {
    const failed = await form([a, b]);
    for (const [{ reason }] of failed) {
      assert.match(
        reason,
        /no process of this cluster answers there .* the same --cluster-key-file/,
      );
    }
    await b.backend.grant("m", blocks);
    await assert.rejects(send(a, b), (error: Error) => {
      assert.match(error.message, /^b at .*: no process of this cluster answers there/);
      return error instanceof UnavailableError;
    });
  }, theirs));

/** What a caller is answered that has verified the server, or does not care. */
async function call(end: GrpcEnd, method: string, token: string | null, security: HostSecurity) {
  const isStream = method === "Write";
  const { signal } = new AbortController();
  const called = await HttpCall.open(
    end.backend.endpoint,
    `/llumnix.Migration/${method}`,
    {
      "content-type": isStream ? STREAM_TYPE : "application/json",
      "content-length": "2",
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
    },
    signal,
    security,
  );
  await called.write(new TextEncoder().encode("{}")).catch(() => {});
  const { status, body } = await called.answer;
  called.close();
  return `${status} ${new TextDecoder().decode(body)}`;
}

Deno.test("grpc security: a stranger learns and writes nothing", () =>
  withEnds(async (a, b) => {
    await form([a, b], "secret of the group");
    for (const method of ["Health", "Stats"]) {
      for (const token of [null, theirs.token, "secret of the group"]) {
        assert.match(await call(a, method, token, ours), /^401 .*only processes of the cluster/);
      }
      assert.match(await call(a, method, ours.token, ours), /^200 /);
    }
    for (const token of [null, ours.token, "s"]) {
      assert.match(await call(a, "Write", token, ours), /unauthenticated.*migration group/);
    }
    // Without TLS the server answers nothing at all.
    const { port } = a.backend.endpoint;
    await assert.rejects(fetch(`http://127.0.0.1:${port}/llumnix.Migration/Health`));
  }));

Deno.test("grpc security: a member whose server does not encrypt is a failed peer", async () => {
  const plain = openEnd("b"), secure = openEnd("a", { security: ours });
  const group = { secret: "s", generation: 1, members: membersOf([secure, plain]) };
  const [{ reason }] = await secure.backend.join(group);
  assert.match(reason, /no process of this cluster answers there/);
  assert.equal((await plain.backend.join(group)).length, 1);
  await plain.backend.close();
  await secure.backend.close();
});

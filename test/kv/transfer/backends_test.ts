import assert from "node:assert/strict";
import { llumnixArguments } from "../../../src/cli/arguments/llumnix.ts";
import { realClock } from "../../../src/core/clock.ts";
import { UsageError } from "../../../src/core/errors.ts";
import { AccountedKvPool } from "../../../src/kv/pool/accounted_kv_pool.ts";
import type { KvMemory, KvPool } from "../../../src/kv/pool/pool.ts";
import type { BackendContext } from "../../../src/kv/transfer/backend_kind.ts";
import { backendOfThread } from "../../../src/kv/transfer/backend_thread.ts";
import {
  backendProblem,
  memoryProblem,
  migrationBackends,
  openBackend,
} from "../../../src/kv/transfer/backends.ts";
import { SUITE_BLOCKS, suiteLayout } from "../../conformance/migration_backend.ts";
import { ExampleDevicePool } from "../pool/example_device_pool.ts";

const devicePool = new ExampleDevicePool(suiteLayout, SUITE_BLOCKS);

function contextOf(pool: KvPool, openLinks = () => assert.fail("it needs no links")) {
  return {
    instanceId: "a",
    model: "m",
    pool,
    limits: { bufferBlocks: 8, numLayers: 1 },
    options: {
      enableMigration: true,
      migrationBackend: "rayrpc",
      migrationBackendInitTimeout: 5,
      migrationBackendTransferType: "rdma",
      migrationBackendKvtransferNamingUrl: "",
      migrationBackendServerAddress: "127.0.0.1:0",
      migrationInsecure: false,
    },
    host: "127.0.0.1",
    security: null,
    clock: realClock,
    openLinks,
  } satisfies BackendContext;
}

Deno.test("each choice of --migration-backend is registered, and nothing else is", () => {
  assert.deepEqual(
    migrationBackends.map(({ name }) => name).sort(),
    [...llumnixArguments["migration-backend"].choices!].sort(),
  );
  assert.ok(migrationBackends.some(({ name }) => name === "gloo"));
});

Deno.test("a backend that cannot protect its connections needs an option where there is a cluster key", async () => {
  const security = { authority: "", certificate: "", privateKey: "", serverName: "", token: "" };
  const links = { open: () => assert.fail("nothing is sent"), close: () => Promise.resolve() };
  const context = contextOf(devicePool, () => links as never);
  const open = (migrationInsecure: boolean) =>
    openBackend("nccl", "example", {
      ...context,
      security,
      options: { ...context.options, migrationInsecure },
    });
  await assert.rejects(open(false), {
    name: "UsageError",
    message: /^--migration-backend nccl neither encrypts .* choose another .*--migration-insecure/,
  });
  await assertNeedsLibraries(() => open(true), "nccl");
});

/** A backend for devices alone is opened by its own tests, over the software device. */
async function assertNeedsLibraries(open: () => Promise<unknown>, name: string): Promise<void> {
  Deno.env.set("LLUMNIX_CUDA_LIBRARIES", "/no/such/directory");
  try {
    const message = new RegExp(`^--migration-backend ${name}: .*cannot be opened`, "s");
    await assert.rejects(open(), { name: "UsageError", message });
  } finally {
    Deno.env.delete("LLUMNIX_CUDA_LIBRARIES");
  }
}

for (const kind of migrationBackends) {
  Deno.test(`${kind.name} opens on each memory that it names, and on no other`, async () => {
    assert.ok(kind.memory.length > 0);
    for (const pool of [devicePool, new AccountedKvPool(suiteLayout, SUITE_BLOCKS)]) {
      const links = { open: () => assert.fail("nothing is sent"), close: () => Promise.resolve() };
      const context = contextOf(pool, () => links as never);
      if (kind.memory.includes(pool.memory)) {
        if (kind.runThread) continue; // its thread is this program's: e2e tests open it
        if (kind.memory.every((memory) => memory === "device")) {
          await assertNeedsLibraries(() => openBackend(kind.name, "example", context), kind.name);
          continue;
        }
        const backend = await openBackend(kind.name, "example", context);
        assert.equal(backend.name, kind.name);
        assert.equal(backend.isReady, !kind.needsGroup);
        assert.equal(backend.join !== undefined, kind.needsGroup);
        await backend.close();
      } else {
        await assert.rejects(openBackend(kind.name, "example", context), UsageError);
      }
    }
  });
}

Deno.test("a backend that cannot move a pool's memory names those that can", () => {
  const register = [
    { name: "gloo", memory: ["host", "none"] },
    { name: "rayrpc", memory: ["host", "device", "none"] },
    { name: "nccl", memory: ["device"] },
  ] as const;
  const problem = (name: "gloo" | "nccl", memory: KvMemory, owner: string) =>
    memoryProblem(register.find((kind) => kind.name === name)!, memory, owner, register);
  assert.equal(
    problem("nccl", "host", "--device cpu"),
    "--migration-backend nccl moves KV blocks in device memory, and --device cpu keeps them in host " +
      "memory: choose gloo or rayrpc",
  );
  assert.equal(problem("nccl", "device", "--device cuda"), null);
  assert.match(
    problem("nccl", "none", "--device sim")!,
    /in device memory, and --device sim only counts them: choose gloo or rayrpc$/,
  );
  assert.match(problem("gloo", "device", "--device cuda")!, /choose rayrpc or nccl$/);
});

Deno.test("what a backend excludes is its own, also before it is there", () => {
  const options = {
    disableInitInstanceByManager: true,
    disableFixedNodeInitInstance: false,
    migrationBackendTransferType: "",
    migrationBackendServerAddress: "",
  } as const;
  assert.match(backendProblem("gloo", options)!, /^When using gloo as migration backend, do not/);
  assert.match(backendProblem("kvtransfer", options)!, /^When using kvTransfer/);
  assert.equal(backendProblem("rayrpc", options), null);
  assert.match(backendProblem("grpc", options)!, /^--migration-backend-server-address : expected/);
});

Deno.test("a worker is told by its name whose thread it is", () => {
  assert.equal(backendOfThread("role:transfer:gloo"), "gloo");
  for (const other of ["role:transfer", "role:engine", ""]) {
    assert.equal(backendOfThread(other), null);
  }
});

import assert from "node:assert/strict";
import { join } from "node:path";
import { openBus } from "../../src/bus/open_bus.ts";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import { MAX_PATH_BYTES, pathAddress, PathProbe, speedOf } from "../../src/agent/path_probe.ts";
import { until } from "../patience.ts";

Deno.test("path: its speed is that of the best quarter of the time", () => {
  assert.equal(speedOf([{ ms: 0, bytes: 0 }, { ms: 500, bytes: 1_000 }]), 2_000); // one chunk in all
  // 10 bytes a millisecond, a pause, and a start ten times slower.
  const at = (ms: number) =>
    ms < 100 ? ms : ms < 300 ? 100 : ms < 600 ? 100 + 10 * (ms - 300) : 3_100;
  const arrivals = Array.from({ length: 801 }, (_, ms) => ({ ms, bytes: at(ms) }));
  assert.equal(speedOf(arrivals), 10_000);
  // Chunks that come together are not taken for speed.
  const burst = Array.from({ length: 9 }, (_, i) => ({ ms: 100 * (i + 1), bytes: 100 * i }));
  assert.equal(
    Math.round(speedOf([{ ms: 0, bytes: 0 }, ...burst, { ms: 900.01, bytes: 900 }])),
    1_333,
  );
});

Deno.test("path: a host listens where its instances do", () => {
  assert.equal(pathAddress("tcp:10.0.0.1:9000", "b", "10.0.0.2"), "tcp:10.0.0.2:0");
  assert.equal(pathAddress("tcp:[fd00::1]:9000", "b", "fd00::2"), "tcp:[fd00::2]:0");
  assert.equal(
    pathAddress("unix:/run/llumnix/manager.sock", "b", null),
    "unix:/run/llumnix/path-b.sock",
  );
  assert.throws(() => pathAddress("tcp:10.0.0.1:9000", "b", null), /the manager is gone/);
  assert.throws(() => pathAddress(`unix:/${"x".repeat(90)}/m.sock`, "b".repeat(60), null), /bytes/);
});

Deno.test("path: bytes between two processes are bounded and counted, and the socket goes", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const bus = openBus();
    const [near, far] = [1, 2].map(() => new PathProbe({ bus, clock: realClock }));
    const path = join(directory, "path.sock");
    const address = await far.receive(`unix:${path}`);
    const speed = await near.send(address);
    assert.equal(speed.address, address);
    assert.ok(speed.bytes > 0 && speed.bytes <= MAX_PATH_BYTES, String(speed.bytes));
    assert.ok(speed.bytesPerSecond > 0 && speed.ms > 0 && speed.roundTripMs > 0);
    await until(() => !Deno.readDirSync(directory).some(() => true), "the socket was gone");
    await assert.rejects(near.send(address), /cannot connect|directory/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("path: one sender at a time, and the next question ends the one before", async () => {
  const bus = new InProcessBus();
  const probe = new PathProbe({ bus, clock: realClock });
  await probe.receive("inproc:a");
  const first = await bus.connect("inproc:a", {});
  const second = await bus.connect("inproc:a", {});
  await until(() => !second.isOpen, "the second sender was sent away");
  assert.ok(first.isOpen);
  await probe.receive("inproc:b");
  await until(() => !first.isOpen, "the first question was over");
  await assert.rejects(bus.connect("inproc:a", {}), /nobody listens/);
  await probe.close();
  await assert.rejects(bus.connect("inproc:b", {}), /nobody listens/);
});

Deno.test("path: a sender of too many bytes is sent away", async () => {
  const bus = new InProcessBus();
  const probe = new PathProbe({ bus, clock: realClock });
  await probe.receive("inproc:a");
  const peer = await bus.connect("inproc:a", {});
  const payload = new Uint8Array(8 << 20);
  const send = () => peer.call("path_bytes", { data: null, payload });
  for (let sent = 0; sent < MAX_PATH_BYTES; sent += payload.length) await send();
  await send().catch(() => {});
  await until(() => !peer.isOpen, "it was sent away");
  await probe.close();
});

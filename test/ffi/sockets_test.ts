import assert from "node:assert/strict";
import { openSockets, POLLIN, POLLOUT, type Sockets } from "../../ffi/sockets.ts";
import { PATIENCE_MS } from "../patience.ts";

const sockets = openSockets();
const isHere = sockets !== null;
const hasIpv6 = canListen("::1");

function canListen(hostname: string): boolean {
  try {
    Deno.listen({ hostname, port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

/** Waits until a descriptor is ready. */
function ready(fd: number, events: number, timeoutMs = PATIENCE_MS): boolean {
  return sockets!.poll([{ fd, events }], timeoutMs)[0] !== 0;
}

function openPair(host: string) {
  const listener = sockets!.listen(host);
  const near = sockets!.connect(host, listener.port);
  assert.ok(ready(listener.fd, POLLIN), `nothing comes to ${host}`);
  const far = sockets!.accept(listener.fd);
  assert.ok(ready(near, POLLOUT));
  assert.equal(sockets!.error(near), null);
  return {
    near,
    far,
    close: () => [near, far, listener.fd].forEach((fd) => sockets!.close(fd)),
  };
}

for (const host of ["127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"]) {
  const ignore = !isHere || (host.includes(":") && !hasIpv6);
  Deno.test({ name: `sockets: bytes from ${host} to itself`, ignore }, () => {
    const { near, far, close } = openPair(host);
    assert.equal(sockets!.write(near, Uint8Array.of(1, 2, 3)), 3);
    assert.ok(ready(far, POLLIN));
    const read = new Uint8Array(8);
    assert.equal(sockets!.read(far, read), 3);
    assert.deepEqual([...read.subarray(0, 3)], [1, 2, 3]);
    close();
  });
}

Deno.test({ name: "sockets: names and what is no address are refused", ignore: !isHere }, () => {
  for (const host of ["localhost", "1.2.3", "1.2.3.256", "::g", "1:2:3", "fe80::1%eth0", ""]) {
    assert.throws(() => (sockets as Sockets).listen(host), /is not an IP address/, host);
  }
});

Deno.test(
  { name: "sockets: one is readable when the least bytes are there", ignore: !isHere },
  () => {
    const { near, far, close } = openPair("127.0.0.1");
    sockets!.setLeastBytes(far, 1000);
    sockets!.write(near, new Uint8Array(999));
    assert.ok(!ready(far, POLLIN, 20));
    sockets!.write(near, new Uint8Array(1));
    assert.ok(ready(far, POLLIN));
    assert.equal(sockets!.read(far, new Uint8Array(2000)), 1000);
    sockets!.write(near, new Uint8Array(5));
    assert.ok(!ready(far, POLLIN, 20));
    sockets!.setLeastBytes(far, 5);
    assert.ok(ready(far, POLLIN));
    close();
  },
);

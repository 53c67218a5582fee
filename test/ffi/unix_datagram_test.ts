import assert from "node:assert/strict";
import { join } from "node:path";
import { sendUnixDatagram } from "../../ffi/unix_datagram.ts";
import { UnixDatagramSocket } from "./unix_datagram_socket.ts";

const ignore = Deno.build.os !== "linux";

Deno.test({ name: "datagrams: to a path, and to an abstract name", ignore }, () => {
  const directory = Deno.makeTempDirSync();
  try {
    for (const path of [join(directory, "s"), `@llumnix-test-${crypto.randomUUID()}`]) {
      using socket = new UnixDatagramSocket(path);
      assert.equal(socket.receive(), null);
      assert.ok(sendUnixDatagram(path, "READY=1\nSTATUS=gr\u00fc\u00dfe"));
      assert.ok(sendUnixDatagram(path, "WATCHDOG=1"));
      assert.deepEqual([...socket.receiveAll()], ["READY=1\nSTATUS=gr\u00fc\u00dfe", "WATCHDOG=1"]);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test({ name: "datagrams: where nobody receives, and what is no address", ignore }, () => {
  const long = `/tmp/${"x".repeat(200)}`;
  for (const path of ["/nowhere/at/all", "@llumnix-nobody", "relative", "", "@", long]) {
    assert.equal(sendUnixDatagram(path, "READY=1"), false, path);
  }
});

Deno.test(
  { name: "datagrams: a receiver that does not read does not hold the sender up", ignore },
  () => {
    using socket = new UnixDatagramSocket(`@llumnix-test-${crypto.randomUUID()}`);
    let sent = 0;
    while (sent < 100_000 && sendUnixDatagram(socket.path, "WATCHDOG=1")) sent++;
    assert.ok(sent > 0 && sent < 100_000, `${sent} datagrams were sent`);
  },
);

import assert from "node:assert/strict";
import { listeningPort, listeningSockets, setInherited } from "../../ffi/listening_sockets.ts";

const ignore = Deno.build.os !== "linux";

Deno.test({ name: "listening sockets: those of TCP that listen, and no others", ignore }, () => {
  const directory = Deno.makeTempDirSync();
  try {
    using tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    using _unix = Deno.listen({ transport: "unix", path: `${directory}/s` });
    const { port } = tcp.addr;
    const found = listeningSockets().filter((socket) => socket.port === port);
    assert.equal(found.length, 1);
    assert.equal(listeningPort(found[0].fd), port);
    assert.ok(listeningSockets().every((socket) => socket.port > 0));
    assert.equal(listeningPort(2), null);
    assert.equal(listeningPort(12_345), null);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test(
  { name: "listening sockets: a program that is started has only those passed on", ignore },
  async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { fd } = listeningSockets().find(({ port }) => port === listener.addr.port)!;
    const link = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    const child = async () => {
      const args = ["-c", `readlink /proc/self/fd/${fd}`];
      const { stdout } = await new Deno.Command("sh", { args, stderr: "null" }).output();
      return new TextDecoder().decode(stdout).trim();
    };
    assert.notEqual(await child(), link);
    setInherited(fd, true);
    assert.equal(await child(), link);
    setInherited(fd, false);
    assert.notEqual(await child(), link);
    assert.throws(() => setInherited(12_345, true), /descriptor 12345/);
  },
);

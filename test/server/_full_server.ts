/**
 * A server in a process of its own that has no free file descriptor from the first byte on stdin to the
 * second. Argument: whether it listens at its `own` socket, or at a `given` one.
 */
import { duplicate, listeningSockets, waitingConnections } from "../../ffi/listening_sockets.ts";
import { startServer } from "../../src/server/server.ts";
import { FakeTextService } from "./fake_text_service.ts";
import { testOptions } from "./harness.ts";

const say = (line: string) => Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
const socketAt = (port: number) => listeningSockets().find((socket) => socket.port === port)!.fd;
const descriptors: number[] = [];
if (Deno.args[0] === "given") {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  descriptors.push(duplicate(socketAt(listener.addr.port))!);
}
const log = { debug() {}, info() {}, warn: say, error: say };
const config = { service: new FakeTextService(), options: testOptions, version: "0", log };
const server = await startServer({ ...config, descriptors });
const socket = socketAt(server.address.port);
Deno.addSignalListener("SIGUSR1", () => {}); // as a service does: the first listener opens files
const stdin = Deno.stdin.readable.getReader();
say(`port ${server.address.port}`);
await stdin.read();
const next = stdin.read(); // begun while there are descriptors
const files: Deno.FsFile[] = [];
fill();
say("full");
// A connection that ends gives a descriptor back, with which the server may accept one more.
for (let turns = 0; turns < 10; turns = waitingConnections(socket) === 0 ? 0 : turns + 1) {
  fill();
  await nextTurn(); // the server tries to accept
}
say("waiting");
await next;
for (const file of files) file.close();
say("free");

function fill(): void {
  try {
    for (;;) files.push(Deno.openSync("/dev/null"));
  } catch {
    // There is none left.
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 10));
}

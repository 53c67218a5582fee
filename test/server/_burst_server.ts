/**
 * A server in a process of its own, whose event loop stands still from when it has said its port until
 * a byte comes on stdin: all connections that were opened meanwhile arrive at once.
 */
import { startServer } from "../../src/server/server.ts";
import { FakeTextService } from "./fake_text_service.ts";
import { testOptions } from "./harness.ts";

const say = (line: string) => Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
const server = await startServer({
  service: new FakeTextService(),
  options: testOptions,
  version: "0",
  log: { debug() {}, info() {}, warn: (message) => say(message), error: (message) => say(message) },
});
say(`port ${server.address.port}`);
Deno.stdin.readSync(new Uint8Array(1));

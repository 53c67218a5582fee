/**
 * Starts a program as systemd does a service with a socket: it listens on PORT, and becomes the program,
 * which has the socket as descriptor 3, and stderr as its journal. Arguments: PORT COMMAND...
 */
import { listeningSockets, setInherited } from "../../ffi/listening_sockets.ts";

const c = Deno.dlopen("libc.so.6", {
  dup2: { parameters: ["i32", "i32"], result: "i32" },
  execvp: { parameters: ["buffer", "buffer"], result: "i32" },
}).symbols;

const [port, ...command] = Deno.args;
Deno.listen({ hostname: "127.0.0.1", port: Number(port) });
const { fd } = listeningSockets().find((socket) => socket.port === Number(port))!;
const { dev, ino } = Deno.statSync("/proc/self/fd/2");
Deno.env.set("JOURNAL_STREAM", `${dev}:${ino}`);
Deno.env.set("LISTEN_PID", `${Deno.pid}`);
Deno.env.set("LISTEN_FDS", "1");

const words = command.map((word) => new TextEncoder().encode(`${word}\0`));
const argv = BigUint64Array.from([
  ...words.map((word) => BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(word)))),
  0n,
]);
c.dup2(fd, 3); // from here on Deno's own descriptor 3 is gone
setInherited(3, true);
c.execvp(words[0], argv);
throw new Error(`cannot execute ${command[0]}`);

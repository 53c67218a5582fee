/** A backend in a process of its own, which says its port and ends with stdin. */
import { openEnd } from "./support.ts";

const { backend } = openEnd("a");
Deno.addSignalListener("SIGUSR1", () => {}); // as an instance does: the first listener opens files
console.log(`port ${backend.endpoint.port}`);
await Deno.stdin.readable.pipeTo(new WritableStream());
Deno.exit(0);

/**
 * A process with one end of a pair: `killed_peer.ts DEVICE`. The control channel is lines of JSON on its
 * standard input and output. `{send: [blocks], leftMs}` makes it send, `{fault, value}` sets a fault of
 * the software NCCL. It tells its states by `{states}`, and the end of a transfer by `{sent}`, whether it moved.
 */
import { TextLineStream } from "./lines.ts";
import * as module from "../../../ffi/nccl/pair.ts";
import { End, Libraries } from "./two_ends.ts";

const print = (message: unknown) =>
  Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(message) + "\n"));

const libraries = new Libraries(Deno.args[0]);
const end = new End(module, libraries, print);
let told = "";
setInterval(() => {
  const states = JSON.stringify(end.pair.states);
  if (states !== told) print({ states: end.pair.states });
  told = states;
}, 1);

const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream())
  .pipeThrough(new TextLineStream());
for await (const line of lines) {
  const message = JSON.parse(line);
  if ("fault" in message) libraries.faults.set(message.fault, message.value);
  else if ("send" in message) {
    const { send: blocks, leftMs } = message;
    for (const block of blocks) end.fill(block, block);
    end.pair.send(end.runs(blocks), { note: { blocks }, leftMs })
      .then(() => print({ sent: true }), () => print({ sent: false }));
  } else end.pair.receive(message);
}
Deno.exit(0);

/** A process with a pool that serves until it is killed. */
import { setImmediate } from "node:timers/promises";
import { Ucx } from "../../../ffi/ucx/ucx.ts";

const context = Ucx.open({ from: Deno.args[0] }).createContext({ settings: { TLS: "tcp" } });
const pool = context.allocate(4 << 20), worker = context.createWorker();
console.log(JSON.stringify({
  address: worker.address().toHex(),
  key: pool.packKey().toHex(),
  pool: String(pool.address),
}));
while (true) {
  if (!worker.progress()) await setImmediate();
}

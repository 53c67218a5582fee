/** Two processes and one allocation: the first one writes it, the second one reads it. */
import { bytesAt, openCuda } from "deno-ffi-cuda";

const byteLength = 1 << 20;
const cuda = openCuda();
cuda.setDevice(0);
const stream = cuda.createStream(), host = cuda.hostAlloc(byteLength);
const [handle] = Deno.args;

if (handle === undefined) {
  const device = cuda.malloc(byteLength);
  bytesAt(host, byteLength).fill(42);
  cuda.copy(device, host, byteLength, stream);
  // The other process knows nothing of this stream: what it opens has to be there.
  cuda.synchronizeStream(stream);
  const args = ["run", "-A", import.meta.filename!, cuda.ipcMemHandle(device).toHex()];
  const { code } = await new Deno.Command(Deno.execPath(), { args }).spawn().status;
  cuda.free(device);
  Deno.exit(code);
}

const device = cuda.openIpcMemHandle(Uint8Array.fromHex(handle));
cuda.copy(host, device, byteLength, stream);
cuda.synchronizeStream(stream);
const seen = new Set(bytesAt(host, byteLength));
console.log(`the other process reads ${byteLength} bytes of value ${[...seen].join(", ")}`);
cuda.closeIpcMemHandle(device);

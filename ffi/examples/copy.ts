import { bytesAt, openCuda } from "deno-ffi-cuda";

const cuda = openCuda(); // libcudart, or libcuda where there is none
cuda.setDevice(0);
const stream = cuda.createStream(), host = cuda.hostAlloc(4096), device = cuda.malloc(4096);
bytesAt(host, 4096).fill(42);
cuda.copy(device, host, 4096, stream); // asynchronous, in the order of the stream
cuda.synchronizeStream(stream);
const handle = cuda.ipcMemHandle(device); // another process: cuda.openIpcMemHandle(handle)
console.log(`${cuda.library.name}: 4096 bytes on the device, shared as ${handle.toHex()}`);

/** The other thread of the CUDA suite: fills memory that the first one allocated. */
import { openCudart } from "../../ffi/cuda/cudart.ts";
import { openDriver } from "../../ffi/cuda/driver.ts";

self.onmessage = ({ data: { api, from, device, byteLength, byte } }) => {
  const cuda = (api === "runtime" ? openCudart : openDriver)({ from });
  cuda.setDevice(0);
  const stream = cuda.createStream();
  cuda.memset(device, byte, byteLength, stream);
  cuda.synchronizeStream(stream);
  cuda.destroyStream(stream);
  self.postMessage("done");
};

/** Opens a library and says where it is. */
import { openLibrary } from "../../ffi/library.ts";

self.onmessage = ({ data: from }) => {
  const name = { name: "libfake", sonames: [], variable: "LLUMNIX_FAKE", install: "" };
  const symbols = { answer: { parameters: [], result: "i32" } } as const;
  self.postMessage(openLibrary(name, symbols, { from }).path);
};

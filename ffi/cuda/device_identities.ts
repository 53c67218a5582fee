/** Names of devices, which only libcuda tells without structs that change their size. */
import { type Library, LibraryNotFoundError, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { textAt } from "../memory.ts";
import type { DeviceIdentity } from "./binding.ts";
import { errorCodes } from "./errors.ts";

export const identitySymbols = {
  cuInit: { parameters: ["u32"], result: "i32" },
  cuDeviceGet: { parameters: ["buffer", "i32"], result: "i32" },
  cuDeviceGetName: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  // A part of a device (MIG) has an id of its own only in the second form, from CUDA 11.4 on.
  cuDeviceGetUuid: { parameters: ["buffer", "i32"], result: "i32" },
  cuDeviceGetUuid_v2: { parameters: ["buffer", "i32"], result: "i32", optional: true },
  cuDeviceTotalMem_v2: { parameters: ["buffer", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

export class DeviceIdentities {
  readonly #options: OpenOptions;
  #opened: Library<typeof identitySymbols>["symbols"] | null | undefined;

  /** @param options of the library whose devices these are; a file of it is no place for libcuda */
  constructor({ from, places }: OpenOptions) {
    const directory = from !== undefined && /\.so(\.|$)/.test(from) ? undefined : from;
    this.#options = { from: directory, places };
  }

  /** Of the device with this number in this process; empty where there is no libcuda to ask. */
  of(ordinal: number): DeviceIdentity {
    const call = this.#libcuda();
    const device = new Int32Array(1);
    if (call === null || call.cuDeviceGet(device, ordinal) !== errorCodes.CUDA_SUCCESS) {
      return { name: "", uuid: "", totalBytes: 0 };
    }
    const name = new Uint8Array(256), id = new Uint8Array(16), total = new BigUint64Array(1);
    call.cuDeviceGetName(name, name.length - 1, device[0]);
    (call.cuDeviceGetUuid_v2 ?? call.cuDeviceGetUuid)(id, device[0]);
    call.cuDeviceTotalMem_v2(total, device[0]);
    return {
      name: textAt(Deno.UnsafePointer.of(name)),
      uuid: uuidText(id),
      totalBytes: Number(total[0]),
    };
  }

  #libcuda() {
    if (this.#opened !== undefined) return this.#opened;
    try {
      const { symbols: call } = openLibrary(libraries.cuda, identitySymbols, this.#options);
      return this.#opened = call.cuInit(0) === errorCodes.CUDA_SUCCESS ? call : null;
    } catch (error) {
      if (!(error instanceof LibraryNotFoundError)) throw error;
      return this.#opened = null;
    }
  }
}

/** As nvidia-smi writes it: "GPU-" and the bytes in groups of 4, 2, 2, 2 and 6. */
function uuidText(id: Uint8Array): string {
  const hex = id.toHex();
  const parts = [[0, 8], [8, 12], [12, 16], [16, 20], [20, 32]].map(([a, b]) => hex.slice(a, b));
  return `GPU-${parts.join("-")}`;
}

/** The software device in tests: built on first use, opened in this process, with its controls. */
import { buildSoftwareDevice } from "../../../scripts/build_software_device.ts";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import { addressOf, nativeBuffer } from "../../../ffi/memory.ts";

const built = await buildSoftwareDevice();

/** Directory of the libraries; null where they cannot be built. */
export const directory = "missing" in built ? null : built.directory;

const skip = "missing" in built ? ` (skipped: no software device, ${built.missing})` : "";

const control = {
  llumnixSoftwareDevice: { parameters: [], result: "pointer" },
  llumnixSoftwareDeviceConfigure: { parameters: ["buffer"], result: "i32" },
  llumnixSoftwareDeviceReset: { parameters: [], result: "void" },
  llumnixSoftwareDeviceCounts: { parameters: ["buffer"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

const controls = directory === null
  ? null
  : Deno.dlopen(`${directory}libcuda.so.1`, control).symbols;

/** The settings that each test starts with; keys as in `ffi/software_device/README.md`. */
const defaults =
  "devices=2,memory=256M,order=late,seed=1,progress=0,poison=1,driver=13000,busy=0," +
  "kernels=plain,fail-allocation=0,fail-allocation-above=0,fail-work=0,hang-work=0";

/** Changes settings of the device of this process. */
export function configure(text: string): void {
  const code = controls!.llumnixSoftwareDeviceConfigure(new TextEncoder().encode(`${text}\0`));
  if (code !== 0) throw new Error(`the software device does not know "${text}"`);
}

/** The device of this process as a new process would find it: after a test in which it failed. */
export function reset(): void {
  controls!.llumnixSoftwareDeviceReset();
}

/** What is alive in the device of this process. */
export function counts() {
  const values = new BigUint64Array(8);
  controls!.llumnixSoftwareDeviceCounts(values);
  const [device, pinned, registered, opened, streams, events, graphs, work] = [...values].map(
    Number,
  );
  return { device, pinned, registered, opened, streams, events, graphs, work };
}

export const label = () => {
  const pointer = controls!.llumnixSoftwareDevice();
  return new Deno.UnsafePointerView(pointer!).getCString();
};

/** What a test has at hand. */
export interface Bench {
  readonly cuda: Cuda;
  /** Host memory, empty or a copy of these bytes, and its address. */
  host(bytes: number | Uint8Array<ArrayBuffer>): { bytes: Uint8Array<ArrayBuffer>; at: bigint };
  /** The bytes at a device address, read on a stream of their own. */
  read(at: bigint, byteLength: number): Uint8Array<ArrayBuffer>;
  /** Device memory with these contents. */
  device(contents: Uint8Array<ArrayBuffer>): bigint;
}

export function bench(cuda: Cuda): Bench {
  const host = (given: number | Uint8Array<ArrayBuffer>) => {
    const bytes = nativeBuffer(typeof given === "number" ? given : given.byteLength);
    if (typeof given !== "number") bytes.set(given);
    return { bytes, at: addressOf(bytes) };
  };
  const copyNow = (to: bigint, from: bigint, byteLength: number) => {
    const stream = cuda.createStream();
    cuda.copy(to, from, byteLength, stream);
    cuda.synchronizeStream(stream);
    cuda.destroyStream(stream);
  };
  return {
    cuda,
    host,
    read: (at, byteLength) => {
      const { bytes, at: to } = host(byteLength);
      copyNow(to, at, byteLength);
      return bytes;
    },
    device: (contents) => {
      const at = cuda.malloc(contents.byteLength);
      copyNow(at, host(contents).at, contents.byteLength);
      return at;
    },
  };
}

const bindings = {
  runtime: () => openCudart({ from: directory! }),
  driver: () => openDriver({ from: directory! }),
};

/** The device of this process as a new process would find it, with these settings over the defaults. */
export function freshBench(settings: string, on: "runtime" | "driver" = "runtime"): Bench {
  controls!.llumnixSoftwareDeviceReset();
  configure(`${defaults}${settings === "" ? "" : `,${settings}`}`);
  const cuda = bindings[on]();
  cuda.setDevice(0);
  return bench(cuda);
}

/**
 * A test on a fresh software device. Where the device cannot be built it is skipped, with the reason in
 * its name.
 * @param settings that differ from the defaults: two devices, late order, no progress by itself
 */
export function deviceTest(
  name: string,
  settings: string,
  run: (bench: Bench) => void | Promise<void>,
  on: "runtime" | "driver" = "runtime",
): void {
  Deno.test({
    name: `software device: ${name}${skip}`,
    ignore: directory === null,
    fn: async () => await run(freshBench(settings, on)),
  });
}

/** `count` bytes of one value. */
export const filled = (count: number, byte: number) => new Uint8Array(count).fill(byte);

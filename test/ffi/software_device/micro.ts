/** The small kernels of micro.cu: their library, their ways to be broken, and how they are run. */
import { KernelDriver } from "../../../ffi/cuda/kernels.ts";
import type { Launch } from "../../../ffi/cuda/launch.ts";
import { buildKernelLibrary, kernelNames } from "../../../scripts/build_kernel_library.ts";
import { type Bench, directory } from "./device.ts";

const source = decodeURIComponent(new URL("micro.cu", import.meta.url).pathname);

/** The library of micro.cu, built where it is not up to date. */
export async function microLibrary(checked: boolean): Promise<string> {
  const output = `${directory}test_micro${checked ? "_checked" : ""}.so`;
  const madeMs = (file: string) => Deno.statSync(file).mtime!.getTime();
  const newest = Math.max(madeMs(source), madeMs(`${directory}stamp`));
  const made = await Deno.stat(output).catch(() => null);
  if (made === null || made.mtime!.getTime() < newest) {
    const compiler = Deno.env.get("CXX") ?? "g++";
    const objects = `${directory}objects`;
    await buildKernelLibrary({ compiler, sources: [source], output, objects, checked });
  }
  return output;
}

/** Blocks and threads of each kernel, and bytes of dynamic shared memory. */
const shapes: Record<string, readonly [blocks: number, threads: number, sharedBytes: number]> = {
  warp_tile: [2, 128, 0],
  half_warp: [1, 128, 0],
  last_block: [8, 64, 0],
  flag: [1, 64, 0],
  stages: [1, 32, 3 * 32 * 16],
  diverge: [1, 64, 0],
  misuse: [2, 64, 256],
  twice: [1, 64, 0],
  product: [1, 32, 0],
  relay: [1, 64, 0],
  chain: [1, 64, 0],
};
/** Kernels of which two launches follow each other, each allowed to begin before the last has ended. */
const programmatic = ["chain"];

export const microKernels = Object.keys(shapes);

/** Kernels by the numbers of their ways to be broken: the functions in which these stand. */
export function waysToBreak(): Map<number, string> {
  const text = Deno.readTextFileSync(source);
  const ways = new Map<number, string>();
  for (const [, number] of text.matchAll(/(?:WITHOUT|BROKEN)\((\d+)/g)) {
    const before = text.slice(0, text.search(new RegExp(`(WITHOUT|BROKEN)\\(${number}\\b`)));
    const helper = before.lastIndexOf("__device__") > before.lastIndexOf("__global__");
    ways.set(Number(number), helper ? "twice" : kernelNames(before).at(-1)!);
  }
  return ways;
}

/**
 * Runs a kernel, broken in one way or none (0), from the library in the device's settings.
 * @returns what it wrote; null if its threads wait for ever
 */
export function runMicro(bench: Bench, name: string, broken: number): Int32Array | null {
  const { cuda, device, read } = bench;
  const driver = KernelDriver.open({ from: directory! });
  const module = driver.loadModule(`.version 7.8\n.target sm_80\n.entry ${name}(`);
  const kernel = driver.kernel(module, name, ["i32", "pointer", "pointer"]);
  const [blocks, threads, sharedBytes] = shapes[name];
  const input = device(new Uint8Array(Int32Array.from({ length: 4096 }, (_, i) => i + 1).buffer));
  const output = device(new Uint8Array(4096));
  const stream = cuda.createStream();
  const launch: Launch = {
    ...{ grid: [blocks, 1, 1], block: [threads, 1, 1], sharedBytes, stream },
    programmatic: programmatic.includes(name),
  };
  kernel.launch(launch, [broken, input, output]);
  if (launch.programmatic) kernel.launch(launch, [broken, input, output]);
  // A block that waits for ever ends its device's context; the next test starts a new one.
  try {
    cuda.synchronizeStream(stream);
  } catch (error) {
    if (!/\b719\b/.test(String(error))) throw error;
    return null;
  }
  return new Int32Array(read(output, 4096).buffer);
}

/** The race checker's own test: each way to break a small kernel is reported, and nothing else. */
import assert from "node:assert/strict";
import { KernelDriver } from "../../../ffi/cuda/kernels.ts";
import { buildKernelLibrary, kernelNames } from "../../../scripts/build_kernel_library.ts";
import { type Bench, configure, deviceTest, directory } from "./device.ts";
import { takeRaces } from "./races.ts";

const source = decodeURIComponent(new URL("micro.cu", import.meta.url).pathname);

/** The library of micro.cu, built where it is not up to date. */
async function library(): Promise<string> {
  const output = `${directory}test_micro.so`;
  const madeMs = (file: string) => Deno.statSync(file).mtime!.getTime();
  const newest = Math.max(madeMs(source), madeMs(`${directory}stamp`));
  const made = await Deno.stat(output).catch(() => null);
  if (made === null || made.mtime!.getTime() < newest) {
    const compiler = Deno.env.get("CXX") ?? "g++";
    const objects = `${directory}objects`;
    await buildKernelLibrary({ compiler, sources: [source], output, objects, checked: true });
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
};

/** Kernels by the numbers of their ways to be broken: the functions in which these stand. */
function waysToBreak(text: string): Map<number, string> {
  const ways = new Map<number, string>();
  for (const [, number] of text.matchAll(/(?:WITHOUT|BROKEN)\((\d+)/g)) {
    const before = text.slice(0, text.search(new RegExp(`(WITHOUT|BROKEN)\\(${number}\\b`)));
    const helper = before.lastIndexOf("__device__") > before.lastIndexOf("__global__");
    ways.set(Number(number), helper ? "twice" : kernelNames(before).at(-1)!);
  }
  return ways;
}

/** Runs a kernel, broken in one way or none (0), and gives the reports. */
function reportsOf(bench: Bench, path: string, name: string, broken: number): string[] {
  const { cuda, device } = bench;
  const driver = KernelDriver.open({ from: directory! });
  const module = driver.loadModule(`.version 7.8\n.target sm_80\n.entry ${name}(`);
  const kernel = driver.kernel(module, name, ["i32", "pointer", "pointer"]);
  const [blocks, threads, sharedBytes] = shapes[name];
  const input = device(new Uint8Array(Int32Array.from({ length: 4096 }, (_, i) => i + 1).buffer));
  const output = device(new Uint8Array(4096));
  const stream = cuda.createStream();
  const launch = { grid: [blocks, 1, 1], block: [threads, 1, 1], sharedBytes, stream } as const;
  kernel.launch(launch, [broken, input, output]);
  // A block that waits for ever ends its device's context; the next bench starts a new one.
  try {
    cuda.synchronizeStream(stream);
  } catch (error) {
    assert.match(String(error), /\b719\b/);
  }
  return takeRaces(path);
}

deviceTest("the race checker is silent over 20 seeds of sound kernels", "", async (bench) => {
  const path = await library();
  for (let seed = 1; seed <= 20; seed++) {
    configure(`kernels=${path},seed=${seed}`);
    for (const name of Object.keys(shapes)) assert.deepEqual(reportsOf(bench, path, name, 0), []);
  }
});

const ways = waysToBreak(Deno.readTextFileSync(source));
assert.deepEqual([...new Set(ways.values())].sort(), Object.keys(shapes).sort());
for (const [broken, name] of ways) {
  deviceTest(`the race checker reports ${name} without its part ${broken}`, "", async (bench) => {
    const path = await library();
    configure(`kernels=${path},seed=1`);
    const reports = reportsOf(bench, path, name, broken);
    assert(reports.length > 0, "no report");
    for (const report of reports) {
      assert.match(report, new RegExp(`^${name}: .* at micro\\.cu:\\d+`));
    }
    const races = reports.filter((report) => report.includes(" after "));
    for (const race of races) assert.match(race, /against micro\.cu:\d+/);
  });
}

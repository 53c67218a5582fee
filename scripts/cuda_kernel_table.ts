/** What each kernel takes of a multiprocessor, from what ptxas prints, and which kernels are refused. */
import { footprintOf } from "../ffi/cuda_kernels/tensor_kernels.ts";

/** A kernel of one target, as `ptxas -v` tells. */
export interface CompiledKernel {
  readonly name: string;
  readonly registers: number;
  readonly spilledBytes: number;
  readonly staticSharedBytes: number;
}

/** Limits of a multiprocessor ("CUDA C++ Programming Guide", compute capabilities). */
export interface Target {
  readonly name: string;
  readonly device: string;
  readonly sharedBytes: number;
  readonly sharedBytesOfBlock: number;
  readonly threads: number;
  readonly blocks: number;
  /**
   * Bytes that each multiprocessor must have under way to keep memory busy: bandwidth x 0.75 us of latency
   * over the multiprocessors. The latency is an estimate, to be measured.
   */
  readonly neededBytes: number;
}

export const targets: readonly Target[] = [
  target("sm_80", "A100", 164, 2048, 32, 2.04e12 / 108),
  target("sm_89", "L40S", 100, 1536, 24, 0.86e12 / 142),
  target("sm_90a", "H200", 228, 2048, 32, 4.8e12 / 132),
  target("sm_100", "B200", 228, 2048, 32, 8e12 / 148),
];

function target(
  name: string,
  device: string,
  sharedKiB: number,
  threads: number,
  blocks: number,
  bytesPerSecond: number,
): Target {
  const neededBytes = bytesPerSecond * 0.75e-6;
  const sharedBytes = sharedKiB << 10, sharedBytesOfBlock = (sharedKiB - 1) << 10;
  return { name, device, sharedBytes, sharedBytesOfBlock, threads, blocks, neededBytes };
}

const registersOfMultiprocessor = 65_536, mostRegisters = 255;
/** Shared memory that each block takes for itself. */
const reservedSharedBytes = 1 << 10;
/** The table's figures are for linear layers with this many inputs, as an 8B model has them. */
const inputs = 4096;
/** Bytes that a kernel may spill: some outside of inner loops, and a kernel that runs once a step. */
const allowedSpills: readonly (readonly [RegExp, number])[] = [
  [/^prompt_attention_\w+_128$/, 16],
  [/^edit_logits$/, 32],
];
/** Kernels that read weights or caches at the speed of memory, and need their bytes under way. */
const streams = /^(norm_linear|norm_gate_up|linear_add|decode_attention)_/;

/** Reads the messages of `ptxas -v`. */
export function parsePtxas(log: string): CompiledKernel[] {
  const kernels: CompiledKernel[] = [];
  const entry = /Compiling entry function '(\w+)'[^]*?(?=Compiling entry function|$)/g;
  for (const { 0: text, 1: name } of log.matchAll(entry)) {
    const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
    const registers = number(/Used (\d+) registers/);
    if (registers === 0) throw new Error(`ptxas tells no registers of ${name}:\n${text}`);
    kernels.push({
      name,
      registers,
      spilledBytes: number(/(\d+) bytes spill stores/),
      staticSharedBytes: number(/(\d+) bytes smem/),
    });
  }
  return kernels;
}

/** How a kernel fits into a multiprocessor. */
export interface Fit {
  /** Blocks at a time. */
  readonly blocks: number;
  readonly sharedBytes: number;
  readonly loadingBytes: number;
}

export function fitOf(kernel: CompiledKernel, target: Target): Fit | null {
  const footprint = footprintOf(kernel.name, inputs, target.sharedBytesOfBlock);
  if (footprint === null) return null;
  const sharedBytes = footprint.sharedBytes + kernel.staticSharedBytes;
  const warps = footprint.threads / 32;
  // Registers go to warps in pieces of 256, and warps to four schedulers.
  const registersOfWarp = Math.ceil(kernel.registers * 32 / 256) * 256;
  const warpsByRegisters = 4 * Math.floor(registersOfMultiprocessor / 4 / registersOfWarp);
  const blocks = Math.min(
    Math.floor(warpsByRegisters / warps),
    Math.floor(target.sharedBytes / (sharedBytes + reservedSharedBytes)),
    Math.floor(target.threads / footprint.threads),
    target.blocks,
  );
  return { blocks, sharedBytes, loadingBytes: footprint.loadingBytes * blocks };
}

/** Why a kernel of a target must not be committed. */
export function complaintsOf(kernel: CompiledKernel, target: Target): string[] {
  const { name, registers, spilledBytes } = kernel;
  const complain = (what: string) => `${name} on ${target.name}: ${what}`;
  const complaints: string[] = [];
  const allowed = allowedSpills.find(([pattern]) => pattern.test(name))?.[1] ?? 0;
  if (spilledBytes > allowed) {
    complaints.push(complain(`spills ${spilledBytes} bytes, ${allowed} are allowed`));
  }
  if (registers > mostRegisters) complaints.push(complain(`${registers} registers`));
  const fit = fitOf(kernel, target);
  if (fit === null) return complaints;
  if (fit.sharedBytes > target.sharedBytesOfBlock) {
    const most = target.sharedBytesOfBlock;
    complaints.push(complain(`${fit.sharedBytes} bytes of shared memory; a block has ${most}`));
  }
  if (fit.blocks === 0) complaints.push(complain("no block fits into a multiprocessor"));
  if (streams.test(name) && fit.loadingBytes < target.neededBytes) {
    const needed = Math.ceil(target.neededBytes);
    complaints.push(complain(`${fit.loadingBytes} bytes under way, ${needed} are needed`));
  }
  return complaints;
}

/** The table, in Markdown. */
export function tableOf(kernels: ReadonlyMap<Target, readonly CompiledKernel[]>): string {
  const KiB = (bytes: number) => (bytes / 1024).toFixed(0);
  const names = [...kernels.values()][0].map(({ name }) => name).sort();
  const lines = names.map((name) => {
    const cells = [...kernels].map(([target, all]) => {
      const kernel = all.find((one) => one.name === name)!;
      const { registers, spilledBytes } = kernel;
      const spills = spilledBytes > 0 ? ` (${spilledBytes} B spilled)` : "";
      const fit = fitOf(kernel, target);
      const rest = fit === null
        ? ""
        : `, ${KiB(fit.sharedBytes)} KiB x ${fit.blocks}, ${KiB(fit.loadingBytes)} KiB`;
      return `${registers}${spills}${rest}`;
    });
    return `| \`${name}\` | ${cells.join(" | ")} |`;
  });
  const needed = [...kernels.keys()].map(({ neededBytes }) => `${KiB(neededBytes)} KiB`);
  const heads = [...kernels.keys()].map(({ name, device }) => `${name} (${device})`);
  return [
    `| kernel | ${heads.join(" | ")} |`,
    `| --- |${" --- |".repeat(heads.length)}`,
    ...lines,
    `| needed under way | ${needed.join(" | ")} |`,
  ].join("\n");
}

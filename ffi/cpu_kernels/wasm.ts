import wasmImage from "./kernels.wasm" with { type: "bytes" };
import { type KernelAddress, KernelError } from "./kernels.ts";
import { KernelLibrary, type KernelMemory, type KernelSymbols } from "./library.ts";

/** Linear memory of wasm32 has 4 GiB; without the last page, so that its end address fits 32 bits. */
const maxPages = 65535;
const initialPages = 64;
const helperStackBytes = 256 * 1024;
/** For packing, matrices are copied into linear memory in pieces of at most this many bytes. */
const stagingBytes = 4 * 1024 * 1024;

/** The message that starts a helper thread. */
interface HelperStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly handle: KernelAddress;
  readonly thread: number;
  /** End address of this thread's stack. */
  readonly stackEnd: number;
}

type WasmExports = KernelSymbols & {
  kernels_help(handle: KernelAddress, thread: number): void;
  readonly __stack_pointer: WebAssembly.Global;
};

/** Starts the worker of a helper thread, which must call {@linkcode runKernelWorker}. */
export type CreateKernelWorker = () => Worker;

function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): WasmExports {
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  return instance.exports as unknown as WasmExports;
}

/**
 * Opens the WASM build, with `threads - 1` helper workers.
 * @throws {KernelError} a worker does not start
 */
export async function openWasm(
  threads: number,
  createWorker: CreateKernelWorker,
): Promise<KernelLibrary> {
  const module = await WebAssembly.compile(wasmImage);
  const memory = new WebAssembly.Memory({ initial: initialPages, maximum: maxPages, shared: true });
  const exports = instantiate(module, memory);
  const handle = exports.kernels_open(threads, 0n);
  const workers: Worker[] = [];
  try {
    for (let thread = 1; thread < threads; thread++) {
      const stack = Number(exports.memory_alloc(BigInt(helperStackBytes)));
      const stackEnd = stack + helperStackBytes;
      const worker = createWorker();
      workers.push(worker);
      await startHelper(worker, { module, memory, handle, thread, stackEnd });
    }
  } catch (error) {
    for (const worker of workers) worker.terminate();
    throw error;
  }
  return new KernelLibrary(
    "wasm",
    threads,
    handle,
    exports,
    linearMemory(memory, exports, workers),
  );
}

function startHelper(worker: Worker, start: HelperStart): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new KernelError(`WASM kernels: helper thread ${start.thread}: ${event.message}`));
    };
    worker.postMessage(start);
  });
}

/** Body of a worker that {@linkcode openWasm} starts: runs kernels until the set is closed. */
export function runKernelWorker(): void {
  const scope = globalThis as unknown as DedicatedWorkerGlobalScope;
  scope.onmessage = (event: MessageEvent<HelperStart>) => {
    const { module, memory, handle, thread, stackEnd } = event.data;
    const exports = instantiate(module, memory);
    exports.__stack_pointer.value = stackEnd;
    scope.postMessage("ready");
    exports.kernels_help(handle, thread);
    scope.close();
  };
}

interface DedicatedWorkerGlobalScope {
  onmessage: (event: MessageEvent<HelperStart>) => void;
  postMessage(message: unknown): void;
  close(): void;
}

function linearMemory(
  memory: WebAssembly.Memory,
  symbols: KernelSymbols,
  workers: readonly Worker[],
): KernelMemory {
  return {
    bytes: (address, byteLength) => new Uint8Array(memory.buffer, Number(address), byteLength),
    eachReadable(rows, rowBytes, use) {
      const rowsAtOnce = Math.max(1, Math.floor(stagingBytes / rowBytes));
      const size = BigInt(Math.min(rowsAtOnce * rowBytes, rows.byteLength));
      if (size === 0n) return;
      const staging = symbols.memory_alloc(size);
      if (staging === 0n) throw new KernelError(`no memory for ${size} bytes: ${wasmLimit}`);
      for (let at = 0; at < rows.byteLength; at += rowsAtOnce * rowBytes) {
        const piece = rows.subarray(at, at + rowsAtOnce * rowBytes);
        new Uint8Array(memory.buffer, Number(staging), piece.byteLength).set(piece);
        use(staging, piece.byteLength / rowBytes);
      }
      symbols.memory_free(staging, size);
    },
    exhausted: () => wasmLimit,
    close: () => {
      for (const worker of workers) worker.terminate();
    },
  };
}

const wasmLimit = "the WASM kernels have 4 GiB for weights, KV cache and activations together; " +
  "use a native kernel set (`deno task kernels` builds them with clang or gcc), a smaller model " +
  "or fewer KV blocks";

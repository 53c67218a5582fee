/** Graphs: work of a stream, recorded once and launched often with one call. */
import { type Library, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { driverErrorSymbols, driverFailure } from "./driver_errors.ts";
import { errorCodes } from "./errors.ts";

export const graphSymbols = {
  ...driverErrorSymbols,
  cuStreamBeginCapture_v2: { parameters: ["u64", "i32"], result: "i32" },
  cuStreamEndCapture: { parameters: ["u64", "buffer"], result: "i32" },
  cuGraphInstantiateWithFlags: { parameters: ["buffer", "u64", "u64"], result: "i32" },
  cuGraphLaunch: { parameters: ["u64", "u64"], result: "i32" },
  cuGraphDestroy: { parameters: ["u64"], result: "i32" },
  cuGraphExecDestroy: { parameters: ["u64"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: calls of other threads go on as ever. */
export const captureModeThreadLocal = 1;

/** Graphs of libcuda. The calling thread has set its device. */
export class GraphDriver {
  readonly #call: Library<typeof graphSymbols>["symbols"];
  readonly #handle = new BigUint64Array(1);

  /** @throws {LibraryNotFoundError} */
  static open(options: OpenOptions = {}): GraphDriver {
    return new GraphDriver(openLibrary(libraries.cuda, graphSymbols, options).symbols);
  }

  private constructor(call: Library<typeof graphSymbols>["symbols"]) {
    this.#call = call;
  }

  /**
   * Records what `enqueue` puts on `stream` instead of running it. `enqueue` must not wait, nor
   * allocate memory of the device.
   * @returns a graph that can be launched; `destroy` frees it
   */
  capture(stream: bigint, enqueue: () => void): bigint {
    const begun = this.#call.cuStreamBeginCapture_v2(stream, captureModeThreadLocal);
    this.#check("cuStreamBeginCapture_v2", begun);
    try {
      enqueue();
    } catch (error) {
      // The stream has to leave its capture, or nothing runs on it again.
      if (this.#call.cuStreamEndCapture(stream, this.#handle) === errorCodes.CUDA_SUCCESS) {
        this.#call.cuGraphDestroy(this.#handle[0]);
      }
      throw error;
    }
    this.#check("cuStreamEndCapture", this.#call.cuStreamEndCapture(stream, this.#handle));
    const graph = this.#handle[0];
    const code = this.#call.cuGraphInstantiateWithFlags(this.#handle, graph, 0n);
    this.#call.cuGraphDestroy(graph);
    this.#check("cuGraphInstantiateWithFlags", code);
    return this.#handle[0];
  }

  launch(graph: bigint, stream: bigint): void {
    this.#check("cuGraphLaunch", this.#call.cuGraphLaunch(graph, stream));
  }

  /** The graph must not be running. */
  destroy(graph: bigint): void {
    this.#check("cuGraphExecDestroy", this.#call.cuGraphExecDestroy(graph));
  }

  #check(name: string, code: number): void {
    if (code !== errorCodes.CUDA_SUCCESS) throw driverFailure(this.#call, name, code);
  }
}

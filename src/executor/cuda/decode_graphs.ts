/** CUDA graphs of decode steps: all launches of a step's layers, recorded once and launched as one. */
import type { GraphDriver } from "../../../ffi/cuda/graphs.ts";
import type { Slice, SliceRoom } from "../transformer/slices.ts";

/** Most rows of a graph; larger batches hide the time of their launches. */
const MOST_ROWS = 256;
/** Contexts of graphs: this many tokens, and four times as many each. */
const LEAST_CONTEXT = 256, CONTEXT_FACTOR = 4;

export interface GraphLimits {
  /** Rows of a slice. */
  readonly maxRows: number;
  /** Longest context that graphs cover: `--max-seq-len-to-capture`, or what the model allows. */
  readonly maxContextLen: number;
}

/**
 * Graphs by the room that their steps have: rows and context are rounded up, the rest of the rows is
 * empty. A row's numbers do not depend on the room.
 */
export class DecodeGraphs {
  readonly #driver: GraphDriver;
  readonly #stream: bigint;
  readonly #limits: GraphLimits;
  readonly #graphs = new Map<string, bigint>();

  constructor(driver: GraphDriver, stream: bigint, limits: GraphLimits) {
    this.#driver = driver;
    this.#stream = stream;
    this.#limits = limits;
  }

  /** How many graphs there are. */
  get size(): number {
    return this.#graphs.size;
  }

  /** The room of a slice in which each sequence has one row; null where launches are not recorded. */
  roomFor(slice: Slice): SliceRoom | null {
    const { maxRows, maxContextLen } = this.#limits;
    let needed = 0;
    for (const { numRows, contextLen } of slice) {
      if (numRows !== 1 || contextLen > maxContextLen) return null;
      needed = Math.max(needed, contextLen);
    }
    let rows = 1;
    while (rows < slice.length) rows *= 2;
    if (rows > Math.min(MOST_ROWS, maxRows)) return null;
    let contextLen = LEAST_CONTEXT;
    while (contextLen < needed) contextLen *= CONTEXT_FACTOR;
    return { rows, contextLen: Math.min(contextLen, maxContextLen) };
  }

  /**
   * Runs what `enqueue` puts on the stream.
   * @param enqueue depends on the room alone; called only if there is no graph yet
   */
  run({ rows, contextLen }: SliceRoom, enqueue: () => void): void {
    const key = `${rows} ${contextLen}`;
    let graph = this.#graphs.get(key);
    if (graph === undefined) {
      graph = this.#driver.capture(this.#stream, enqueue);
      this.#graphs.set(key, graph);
    }
    this.#driver.launch(graph, this.#stream);
  }

  /** Frees the graphs, once none is running. */
  close(): void {
    for (const graph of this.#graphs.values()) this.#driver.destroy(graph);
    this.#graphs.clear();
  }
}

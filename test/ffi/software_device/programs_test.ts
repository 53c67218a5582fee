/**
 * Random programs: steps in several streams that change a few buffers, with a wait for each dependency
 * and no more. Whatever the order of work, the result is that of running them one after the other; the
 * same program captured into a graph gives it too.
 */
import assert from "node:assert/strict";
import { GraphDriver } from "../../../ffi/cuda/graphs.ts";
import { type Bench, configure, deviceTest, directory, filled } from "./device.ts";

const buffers = 6, streams = 4, steps = 40, byteLength = 64;

/** Copies a buffer to another one, marks the copy with the step's number, and notes what it is then. */
interface Step {
  readonly stream: number;
  readonly from: number;
  readonly to: number;
  /** Steps of other streams that it waits for. */
  readonly waits: readonly number[];
}

/** A sequence of numbers below a bound (mulberry32). */
function randomOf(seed: number): (bound: number) => number {
  let state = seed * 0x9e3779b1;
  return (bound) => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) % bound;
  };
}

function programOf(seed: number): Step[] {
  const random = randomOf(seed);
  const program: Step[] = [];
  // For each step, and for the end of each stream, the last step of each stream that came before.
  const before: number[][] = [];
  const ends = Array.from({ length: streams }, () => new Array<number>(streams).fill(-1));
  for (let index = 0; index < steps; index++) {
    const stream = random(streams), from = random(buffers);
    const to = (from + 1 + random(buffers - 1)) % buffers;
    const known = ends[stream], waits: number[] = [];
    for (let other = index - 1; other >= 0; other--) {
      const earlier = program[other];
      const clashes = earlier.to === from || earlier.to === to || earlier.from === to;
      if (!clashes || known[earlier.stream] >= other) continue;
      waits.push(other);
      before[other].forEach((last, i) => known[i] = Math.max(known[i], last));
    }
    known[stream] = index;
    before.push([...known]);
    program.push({ stream, from, to, waits });
  }
  return program;
}

/** Puts the program into the streams. `skipped` numbers a wait that is left out; -1: none. */
function enqueue(
  { cuda }: Bench,
  program: readonly Step[],
  pool: readonly bigint[],
  queues: readonly bigint[],
  skipped = -1,
): number {
  const done = program.map(() => cuda.createEvent());
  let count = 0;
  program.forEach(({ stream, from, to, waits }, index) => {
    const queue = queues[stream];
    for (const other of waits) {
      if (count++ !== skipped) cuda.waitEvent(queue, done[other]);
    }
    cuda.copy(pool[to], pool[from], byteLength, queue);
    cuda.memset(pool[to] + BigInt(index % byteLength), index, 1, queue);
    cuda.copy(pool[buffers + index], pool[to], byteLength, queue);
    cuda.recordEvent(done[index], queue);
  });
  for (const event of done) cuda.destroyEvent(event);
  return count;
}

function contents(bench: Bench, pool: readonly bigint[]): string {
  return pool.map((at) => bench.read(at, byteLength).toHex()).join();
}

/** The contents after the steps one by one. */
function expected(program: readonly Step[]): string {
  const pool = Array.from({ length: buffers }, (_, i) => filled(byteLength, i + 100));
  program.forEach(({ from, to }, index) => {
    pool[to] = pool[from].slice();
    pool[to][index % byteLength] = index;
    pool[buffers + index] = pool[to];
  });
  return pool.map((bytes) => bytes.toHex()).join();
}

/** The buffers, and behind them the notes of the steps. */
const newPool = ({ device }: Bench) =>
  Array.from({ length: buffers + steps }, (_, i) => device(filled(byteLength, i + 100)));

const orders = ["eager", "late", "random"] as const;

deviceTest("random programs with all their waits give one result in every order", "", (bench) => {
  const { cuda } = bench;
  const queues = Array.from({ length: streams }, () => cuda.createStream());
  for (let seed = 1; seed <= 30; seed++) {
    const program = programOf(seed);
    for (const order of orders) {
      configure(`order=${order},seed=${seed}`);
      const pool = newPool(bench);
      enqueue(bench, program, pool, queues);
      for (const queue of queues) cuda.synchronizeStream(queue);
      assert.equal(contents(bench, pool), expected(program), `${order}, program ${seed}`);
      pool.forEach((at) => cuda.free(at));
    }
  }
});

deviceTest("random programs give the same result from a graph", "", (bench) => {
  const { cuda } = bench;
  const graphs = GraphDriver.open({ from: directory! });
  const queues = Array.from({ length: streams }, () => cuda.createStream());
  const [origin] = queues;
  for (let seed = 1; seed <= 10; seed++) {
    const program = programOf(seed), pool = newPool(bench);
    const start = cuda.createEvent(), ends = queues.map(() => cuda.createEvent());
    const graph = graphs.capture(origin, () => {
      cuda.recordEvent(start, origin);
      for (const queue of queues.slice(1)) cuda.waitEvent(queue, start);
      enqueue(bench, program, pool, queues);
      queues.slice(1).forEach((queue, i) => {
        cuda.recordEvent(ends[i], queue);
        cuda.waitEvent(origin, ends[i]);
      });
    });
    for (const order of orders) {
      configure(`order=${order},seed=${seed}`);
      const fresh = newPool(bench);
      pool.forEach((at, i) => cuda.copy(at, fresh[i], byteLength, origin));
      graphs.launch(graph, origin);
      cuda.synchronizeStream(origin);
      assert.equal(contents(bench, pool), expected(program), `${order}, program ${seed}`);
    }
    graphs.destroy(graph);
  }
});

deviceTest("each wait of random programs is missed when it is left out", "", (bench) => {
  const { cuda } = bench;
  const queues = Array.from({ length: streams }, () => cuda.createStream());
  /** Whether the result is right if the host waits for the stream `first` before the others. */
  const run = (program: readonly Step[], skipped: number, first: number): boolean => {
    const pool = newPool(bench);
    enqueue(bench, program, pool, queues, skipped);
    cuda.synchronizeStream(queues[first]);
    for (const queue of queues) cuda.synchronizeStream(queue);
    const right = contents(bench, pool) === expected(program);
    pool.forEach((at) => cuda.free(at));
    return right;
  };
  const unnoticed: string[] = [];
  for (let seed = 1; seed <= 3; seed++) {
    const program = programOf(seed);
    const waiting = program.flatMap(({ stream, waits }) => waits.map(() => stream));
    waiting.forEach((stream, skipped) => {
      configure("order=late");
      if (!run(program, skipped, stream)) return;
      for (let order = 1; order <= 20; order++) {
        configure(`order=random,seed=${order}`);
        if (!run(program, skipped, stream)) return;
      }
      unnoticed.push(`program ${seed}, wait ${skipped} of ${waiting.length}`);
    });
  }
  assert.deepEqual(unnoticed, []);
});

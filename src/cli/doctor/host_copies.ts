/**
 * Speeds of copies in host memory, and to another process: by shared memory, by reading the other's memory and
 * by loopback TCP.
 */
import { TextLineStream } from "./lines.ts";
import { addressOf, nativeBuffer } from "../../../ffi/memory.ts";
import { openProcessMemory } from "../../../ffi/process_memory.ts";
import { selfCommand } from "../../core/self_command.ts";
import { ptraceScope } from "../../kv/transfer/kvtransfer/host_conditions.ts";
import { gigabytesPerSecond, rateOf } from "./rate.ts";
import type { PathReport } from "./report.ts";
import {
  copy,
  copyOnThreads,
  createShared,
  openShared,
  type SharedMemory,
} from "./shared_memory.ts";

const CHUNK_BYTES = 1 << 20;
/** Bytes that one system call reads of another process, as `kvtransfer` does. */
const READ_BYTES = 4 << 20;
/** Most threads that copy at once: more add nothing to the bandwidth of a socket. */
const MOST_THREADS = 16;
/** The other process answers within this time, or the measurement fails. */
const CHILD_LIMIT_MS = 10_000;
/** Of one direction of one path. The whole table takes about two seconds. */
const DIRECTION_MS = 100;

/** Names of the paths to another process. */
interface ChildPaths {
  readonly shared: string;
  readonly read: string;
  readonly tcp: string;
}

/** What the other process found. */
interface ChildResult {
  readonly forwardGBps: number;
  readonly backGBps: number;
}

/**
 * Measures memcpy, shared memory, reads of another process's memory and loopback TCP.
 * @param byteLength of a buffer
 * @param cpus that may copy at once
 */
export async function measureHost(byteLength: number, cpus: number): Promise<PathReport[]> {
  const memcpy = "memcpy, one thread", all = `memcpy, ${threadsText(cpus)}`;
  const between: ChildPaths = {
    shared: "shared memory to another process",
    read: "memory read by another process",
    tcp: "loopback TCP to another process",
  };
  let memory: SharedMemory;
  try {
    memory = createShared(byteLength);
  } catch (error) {
    const failure = (error as Error).message;
    return [memcpy, all, ...Object.values(between)].map((path) => failed(path, failure));
  }
  using _ = memory;
  memory.bytes.fill(1);
  const own = nativeBuffer(byteLength).fill(2), at = addressOf(own);
  const results = [
    await pathOf(memcpy, (to, from) => copy(to, from, byteLength)),
    await pathOf(all, (to, from) => copyOnThreads(to, from, byteLength, threadsOf(cpus))),
  ];
  return [...results, ...await measureChild(memory.file, at, byteLength, between)];

  async function pathOf(
    path: string,
    run: (to: bigint, from: bigint) => void | Promise<void>,
  ): Promise<PathReport> {
    const forwardGBps = await rateOf(byteLength, DIRECTION_MS, () => run(memory.address, at));
    const backGBps = await rateOf(byteLength, DIRECTION_MS, () => run(at, memory.address));
    return { path, forwardGBps, backGBps, softwareDevice: false, failure: null };
  }
}

/** @param own address of a buffer, which the other process reads */
async function measureChild(
  file: string,
  own: bigint,
  byteLength: number,
  { shared, read, tcp }: ChildPaths,
): Promise<PathReport[]> {
  const [command, ...leading] = selfCommand();
  allowReaders();
  const words = [file, byteLength, Deno.pid, own].map(String);
  const child = new Deno.Command(command, {
    args: [...leading, "doctor", "child", "copies", ...words],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => kill(child), CHILD_LIMIT_MS);
  const complaint = new Response(child.stderr).text();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())
    .getReader();
  const next = async () => {
    const { value } = await lines.read();
    if (value === undefined) {
      throw new Error(`the other process ended: ${(await complaint).trim() || "without a word"}`);
    }
    return JSON.parse(value);
  };
  const measured = async (path: string, measure: () => Promise<ChildResult>) => {
    try {
      return { path, ...await measure(), softwareDevice: false, failure: null };
    } catch (error) {
      return failed(path, (error as Error).message);
    }
  };
  try {
    const bySocket = await measured(tcp, async () => await copyBySocket((await next()).port));
    const byMemory = await measured(shared, async () => {
      const { failure, ...result } = await next();
      if (failure !== undefined) throw new Error(failure);
      return result;
    });
    const byReading = await measured(read, async () => {
      const { failure, forwardGBps, address } = await next();
      if (failure !== undefined) throw new Error(failure);
      return { forwardGBps, backGBps: await readRate(child.pid, BigInt(address), own, byteLength) };
    });
    return [byMemory, byReading, bySocket];
  } finally {
    clearTimeout(timer);
    kill(child);
    await lines.cancel();
    await complaint;
    await child.status;
  }
}

/** Sends for a while, then receives for a while. */
async function copyBySocket(port: number): Promise<ChildResult> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const startMs = performance.now();
  const sent = await sendFor(connection, DIRECTION_MS);
  await connection.closeWrite();
  await readFully(connection, new Uint8Array(1)); // the other process has received everything
  const turnMs = performance.now();
  const received = await receiveAll(connection);
  return {
    forwardGBps: gigabytesPerSecond(sent, turnMs - startMs),
    backGBps: gigabytesPerSecond(received, performance.now() - turnMs),
  };
}

/**
 * The other process: `llumnix doctor child copies FILE BYTES PID ADDRESS`. Prints a port, then the results of
 * shared memory and of reading; then it can be read, until it is killed.
 */
export async function runCopiesChild(
  file: string,
  byteLength: number,
  pid: number,
  address: bigint,
): Promise<void> {
  const print = (message: unknown) => console.log(JSON.stringify(message));
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  print({ port: listener.addr.port });
  {
    using connection = await listener.accept();
    await receiveAll(connection);
    await connection.write(new Uint8Array(1));
    await sendFor(connection, DIRECTION_MS);
  }
  allowReaders();
  const own = nativeBuffer(byteLength).fill(3), at = addressOf(own);
  try {
    using memory = openShared(file, byteLength);
    const rate = (to: bigint, from: bigint) =>
      rateOf(byteLength, DIRECTION_MS, () => copy(to, from, byteLength));
    print({
      forwardGBps: await rate(at, memory.address),
      backGBps: await rate(memory.address, at),
    });
  } catch (error) {
    print({ failure: (error as Error).message });
  }
  try {
    print({ forwardGBps: await readRate(pid, address, at, byteLength), address: String(at) });
  } catch (error) {
    print({ failure: (error as Error).message });
  }
  await new Promise((resolve) => setTimeout(resolve, CHILD_LIMIT_MS));
  own.fill(0); // so that it stays until here
}

/** GB/s of reads of another process's memory. @throws {Error} the system has no such call, or refuses it */
async function readRate(
  pid: number,
  from: bigint,
  into: bigint,
  byteLength: number,
): Promise<number> {
  const memory = openProcessMemory();
  if (memory === null) throw new Error("only measured on Linux");
  return await rateOf(byteLength, DIRECTION_MS, () => {
    for (let done = 0; done < byteLength;) {
      const bytes = BigInt(Math.min(READ_BYTES, byteLength - done)), offset = BigInt(done);
      const place = (address: bigint) => BigUint64Array.of(address + offset, bytes);
      done += memory.read(pid, place(from), place(into));
    }
  });
}

/** Where only a process's ancestors may read it, lets others of its user do so, as `kvtransfer` does. */
function allowReaders(): void {
  if (ptraceScope() === 1) openProcessMemory()?.allowReaders();
}

async function sendFor(connection: Deno.Conn, ms: number): Promise<number> {
  const chunk = new Uint8Array(CHUNK_BYTES).fill(1);
  const endMs = performance.now() + ms;
  let sent = 0;
  do sent += await connection.write(chunk); while (performance.now() < endMs);
  return sent;
}

async function receiveAll(connection: Deno.Conn): Promise<number> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  let received = 0;
  for (let bytes; (bytes = await connection.read(chunk)) !== null;) received += bytes;
  return received;
}

async function readFully(connection: Deno.Conn, into: Uint8Array): Promise<void> {
  if (await connection.read(into) === null) throw new Error("the other process hung up");
}

function threadsOf(cpus: number): number {
  return Math.max(1, Math.min(MOST_THREADS, cpus));
}

function threadsText(cpus: number): string {
  const threads = threadsOf(cpus);
  return `${threads} ${threads === 1 ? "thread of a pool" : "threads"}`;
}

function failed(path: string, failure: string): PathReport {
  return { path, forwardGBps: null, backGBps: null, softwareDevice: false, failure };
}

function kill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has ended.
  }
}

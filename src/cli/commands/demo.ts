/** `llumnix demo`: the same bursty load without and with migration, to watch on the page. */
import type { LoadRequest } from "../../bench/load_request.ts";
import { API_KEY_VARIABLE } from "../../core/environment.ts";
import { UsageError } from "../../core/errors.ts";
import { Random } from "../../core/random.ts";
import { selfCommand } from "../../core/self_command.ts";
import { type RunningServer, type ServerSpec, startServer } from "../bench/server.ts";
import {
  type ActOptions,
  type ActResult,
  measureSpeed,
  measureTokens,
  perform,
} from "../demo/act.ts";
import type { DemoOptions } from "../demo/arguments.ts";
import { closingTable, sameAnswers, speedWarning } from "../demo/closing_table.ts";
import { demoLoad } from "../demo/load.ts";
import { takesEscapes } from "../../core/terminal.ts";

const NUM_INSTANCES = 4;
/** KV blocks of each instance: few, so that memory is what requests wait for. */
const BLOCKS = 128;
const BLOCK_SIZE = 16;
/** Longest request in tokens. */
const MAX_LENGTH = 1536;
/** The load asks for this part of what the machine can do. */
const LOAD_FACTOR = 0.6;
/** Exit code of a program that Ctrl-C ended. */
const INTERRUPTED = 130;
const LINE_MS = 10_000;
const REDRAW_MS = 200;
/** Time for the server to say whether it is ready. */
const ANSWER_MS = 2_000;
/** Different failures that are shown. */
const SHOWN_FAILURES = 3;

const introduction =
  "The same requests twice, in bursts that overfill the KV caches of four instances. " +
  "Each\ngoes to the least loaded one. In the middle, an instance is killed.";

const serving = [
  ...["--initial-instances", `${NUM_INSTANCES}`, "--num-gpu-blocks-override", `${BLOCKS}`],
  ...["--block-size", `${BLOCK_SIZE}`, "--max-model-len", `${MAX_LENGTH}`],
  ...["--swap-space", "0", "--cpu-threads", "1"],
  ...["--dispatch-policy", "load", "--log-level", "error"],
];
const migrating = [
  ...["--enable-migration", "--enable-defrag", "true", "--load-metric", "virtual_usage"],
  ...["--pair-migration-policy", "waiting_first", "--request-migration-policy", "FIT"],
];

/**
 * Runs both acts and prints the table.
 * @returns the exit code: 0 if no request was lost, 1 if one was, 130 after Ctrl-C
 * @throws {LlumnixError} the server cannot be started
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  const signal = stopAtInterrupt();
  const port = availablePort(options.host, options.port);
  const place = [`--host=${options.host}`, `--port=${port}`];
  const baseUrl = urlOf(options.host, port);
  console.log(`The page: ${baseUrl.href}\n\n${introduction}\n`);
  const acts: ActResult[] = [], speeds: number[] = [];
  let load: LoadRequest[] | null = null;
  for (const [i, flags] of [[], migrating].entries()) {
    if (signal.aborted) break;
    console.log(`${i + 1} of 2: four instances, ${i === 0 ? "without" : "with"} migration`);
    await using server = await start([...serving, ...flags, ...place], baseUrl, signal);
    const { adminToken } = server.spec;
    const act: ActOptions = { baseUrl, adminToken: adminToken!, headers: keyHeaders(), signal };
    // Both servers begin equally warm: the first requests of a process are slow.
    const speed = await measureSpeed(act);
    speeds.push(speed);
    if (load === null) {
      load = demoLoad({
        seconds: options.seconds,
        tokensPerSecond: LOAD_FACTOR * speed,
        numInstances: NUM_INSTANCES,
        cacheTokens: BLOCKS * BLOCK_SIZE,
        charactersPerToken: await measureTokens(act),
        random: new Random(options.seed),
      });
      console.log(
        `  this machine makes ${speed.toFixed(0)} tokens a second; ${load.length} requests ask ` +
          `for ${Math.round(100 * LOAD_FACTOR)}% of that`,
      );
    }
    acts.push(await performAndShow(act, load));
  }
  const [before, after] = acts;
  if (signal.aborted || after === undefined) return INTERRUPTED;
  console.log(`\n${closingTable(before, after)}\n\n${sameAnswers(before, after)}`);
  const warning = speedWarning(speeds[0], speeds[1]);
  if (warning !== null) console.log(`\n${warning}`);
  const hasLost = acts.some(({ records }) => records.some(({ failure }) => failure !== null));
  for (const failure of failuresOf(acts)) {
    console.error(`llumnix demo: a request failed: ${failure}`);
  }
  return hasLost ? 1 : 0;
}

async function performAndShow(
  act: ActOptions,
  load: readonly LoadRequest[],
): Promise<ActResult> {
  const progress = new ProgressLine(load.length);
  const result = await perform(act, load, {
    onKill: (instanceId, numRequests) =>
      progress.say(
        `  killed ${instanceId} with SIGKILL: its ${numRequests} requests go on elsewhere`,
      ),
    onProgress: (numDone, numSent) => progress.show(numDone, numSent),
  });
  progress.say(`  ${result.records.length} requests done`);
  return result;
}

/** One line that is drawn again and again; without escapes, a line every ten seconds. */
class ProgressLine {
  readonly #redraws = takesEscapes();
  #shownMs = performance.now();

  constructor(private readonly total: number) {}

  show(numDone: number, numSent: number): void {
    const nowMs = performance.now();
    if (nowMs - this.#shownMs < (this.#redraws ? REDRAW_MS : LINE_MS)) return;
    this.#shownMs = nowMs;
    const text = `  ${numDone} of ${this.total} requests done, ${numSent - numDone} running`;
    if (this.#redraws) write(`\r\x1b[K${text}`);
    else console.error(text);
  }

  /** A line that stays. */
  say(text: string): void {
    if (this.#redraws) write("\r\x1b[K");
    console.log(text);
  }
}

function write(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}

function start(args: readonly string[], baseUrl: URL, signal: AbortSignal): Promise<RunningServer> {
  const spec: ServerSpec = {
    name: "llumnix serve",
    command: [...selfCommand(), "serve", ...args, "--log-filename="],
    baseUrl,
    isOurs: true,
    adminToken: crypto.randomUUID(),
  };
  const isServing = () =>
    fetch(new URL("is_ready", baseUrl), { signal: AbortSignal.timeout(ANSWER_MS) })
      .then((answer) => answer.json()).catch(() => false);
  return startServer(spec, isServing, signal);
}

/** The server wants the API key of the environment, which it has from this process. */
function keyHeaders(): Record<string, string> {
  const key = Deno.env.get(API_KEY_VARIABLE);
  return key === undefined ? {} : { authorization: `Bearer ${key}` };
}

/** The server listens at this address, or at all addresses of this machine. */
function addressOf(host: string): string {
  return host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
}

function urlOf(host: string, port: number): URL {
  const address = addressOf(host);
  return new URL(`http://${address.includes(":") ? `[${address}]` : address}:${port}/`);
}

/**
 * The port, or a free one.
 * @throws {UsageError} the port is taken, or the host is no address of this machine
 */
function availablePort(host: string, port: number | null): number {
  try {
    using listener = Deno.listen({ hostname: host, port: port ?? 0 });
    return listener.addr.port;
  } catch (cause) {
    const message = cause instanceof Deno.errors.AddrInUse
      ? `--port ${port} is taken: choose another, or leave it out for a free one`
      : `cannot listen at --host ${host}: expected an address of this machine`;
    throw new UsageError(message, { cause });
  }
}

function failuresOf(acts: readonly ActResult[]): string[] {
  const failures = acts.flatMap(({ records }) => records.flatMap(({ failure }) => failure ?? []));
  return [...new Set(failures)].slice(0, SHOWN_FAILURES);
}

/** Ctrl-C ends the demo; a second one ends the program at once. */
function stopAtInterrupt(): AbortSignal {
  const controller = new AbortController();
  Deno.addSignalListener("SIGINT", () => {
    if (controller.signal.aborted) Deno.exit(INTERRUPTED);
    controller.abort();
  });
  return controller.signal;
}

/** `llumnix demo`: a bursty load on two services, without and with migration, to watch on the page. */
import { API_KEY_VARIABLE } from "../../core/environment.ts";
import { UsageError } from "../../core/errors.ts";
import { Random } from "../../core/random.ts";
import { selfCommand } from "../../core/self_command.ts";
import { type RunningServer, type ServerSpec, startServer } from "../bench/server.ts";
import {
  type ActOptions,
  measureSpeed,
  measureTokens,
  perform,
  untilServing,
} from "../demo/act.ts";
import type { DemoOptions } from "../demo/arguments.ts";
import { closingTable, gainSentence, type Round, sameAnswers } from "../demo/closing_table.ts";
import { demoLoad, type LoadShape, probeLoad } from "../demo/load.ts";
import { takesEscapes } from "../../core/terminal.ts";

const NUM_INSTANCES = 4;
/** KV blocks of each instance: few, so that memory is what requests wait for. */
const BLOCKS = 128;
const BLOCK_SIZE = 16;
/** Longest request in tokens. */
const MAX_LENGTH = 1536;
/**
 * The load asks for this part of what a full service makes. Simulated without kills, with two profiles and six
 * seeds, migration shortens the P99 time to first token 1.8 to 10 times at 0.9 and 1.3 to 4 times at 1. Below 0.7
 * nothing queues, and there is nothing to gain. Real runs on two cores beside other programs (load average 15 to
 * 27) had medians of 1.1, 1.4, 1.3, 1.2, 1.3 and 0.7 at 0.9, and 1.0 and 0.8 at 0.7: no gain that one could rely on.
 */
const LOAD_FACTOR = 0.9;
const PROBE_SEED = 0;
/** Exit code of a program that Ctrl-C ended. */
const INTERRUPTED = 130;
const LINE_MS = 10_000;
const REDRAW_MS = 200;
/** Time for the server to say whether it is ready. */
const ANSWER_MS = 2_000;
/** Different failures that are shown. */
const SHOWN_FAILURES = 3;

const introduction =
  "Two services of four instances get the same requests at the same time, in bursts that nearly fill\n" +
  "their KV caches: most have a short prompt, some a long one. Each request goes to the least loaded\n" +
  "instance. In each round, one instance of each service is killed. Only migration differs.";

const serving = [
  ...["--initial-instances", `${NUM_INSTANCES}`, "--num-gpu-blocks-override", `${BLOCKS}`],
  ...["--block-size", `${BLOCK_SIZE}`, "--max-model-len", `${MAX_LENGTH}`],
  ...["--swap-space", "0", "--cpu-threads", "1"],
  ...["--dispatch-policy", "load", "--load-metric", "virtual_usage", "--log-level", "error"],
];
const migration = [
  ...["--enable-migration", "--enable-defrag", "true"],
  ...["--pair-migration-policy", "waiting_first", "--request-migration-policy", "FIT"],
];

/**
 * Runs the rounds and prints the table.
 * @returns the exit code: 0 if no request was lost, 1 if one was, 130 after Ctrl-C
 * @throws {LlumnixError} a server cannot be started
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  const signal = stopAtInterrupt();
  const { host } = options;
  const port = availablePort(host, options.port);
  const otherPort = availablePort(host, null, port);
  console.log(`The page, with migration:    ${urlOf(host, port).href}`);
  console.log(`The page, without migration: ${urlOf(host, otherPort).href}\n\n${introduction}\n`);
  const rounds: Round[] = [];
  try {
    await using without = await start(host, otherPort, [], signal);
    await using migrating = await start(host, port, migration, signal);
    const services = { without: actOf(without, signal), migrating: actOf(migrating, signal) };
    for (let i = 0; i < options.rounds; i++) rounds.push(await runRound(services, options, i));
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  if (signal.aborted) return INTERRUPTED;
  console.log(`\n${closingTable(rounds)}\n\n${gainSentence(rounds)}\n${sameAnswers(rounds)}`);
  const failures = failuresOf(rounds);
  for (const failure of failures) console.error(`llumnix demo: a request failed: ${failure}`);
  return failures.length > 0 ? 1 : 0;
}

function actOf({ spec: { baseUrl, adminToken } }: RunningServer, signal: AbortSignal): ActOptions {
  return { baseUrl, adminToken: adminToken!, headers: keyHeaders(), signal };
}

/** Measures the machine, and sends both services the load that this asks for. */
async function runRound(
  { without, migrating }: { readonly without: ActOptions; readonly migrating: ActOptions },
  { seconds, seed, rounds }: DemoOptions,
  round: number,
): Promise<Round> {
  const shape: LoadShape = {
    numInstances: NUM_INSTANCES,
    cacheTokens: BLOCKS * BLOCK_SIZE,
    charactersPerToken: await measureTokens(without),
  };
  const probe = probeLoad(shape, new Random(PROBE_SEED));
  const speeds = await Promise.all([without, migrating].map(async (service) => {
    await untilServing(service, NUM_INSTANCES);
    return await measureSpeed(service, probe);
  }));
  const speed = (speeds[0] + speeds[1]) / 2;
  const rate = { seconds, tokensPerSecond: LOAD_FACTOR * speed };
  const load = demoLoad(shape, rate, new Random(seed + round));
  console.log(
    `Round ${round + 1} of ${rounds}: a full service makes ${speed.toFixed(0)} tokens a second; ` +
      `${load.length} requests ask for ${Math.round(100 * LOAD_FACTOR)}% of that`,
  );
  const progress = new ProgressLine(2 * load.length);
  const play = (service: ActOptions, name: string) =>
    perform(service, load, {
      onKill: (instanceId, numRequests) =>
        progress.say(
          `  ${name}: killed ${instanceId} with SIGKILL: its ${numRequests} requests go on elsewhere`,
        ),
      onSent: () => progress.sent(),
      onEnd: () => progress.ended(),
    });
  const [ofWithout, ofMigrating] = await Promise.all([
    play(without, "without migration"),
    play(migrating, "with migration"),
  ]);
  progress.say(`  ${load.length} requests done, twice`);
  return { without: ofWithout, migrating: ofMigrating };
}

/** One line that is drawn again and again; without escapes, a line every ten seconds. */
class ProgressLine {
  readonly #redraws = takesEscapes();
  #shownMs = performance.now();
  #numSent = 0;
  #numDone = 0;

  /** @param total requests of both services */
  constructor(private readonly total: number) {}

  /** A request was sent. */
  sent(): void {
    this.#numSent++;
    this.#show();
  }

  /** A request has ended. */
  ended(): void {
    this.#numDone++;
    this.#show();
  }

  #show(): void {
    const nowMs = performance.now();
    if (nowMs - this.#shownMs < (this.#redraws ? REDRAW_MS : LINE_MS)) return;
    this.#shownMs = nowMs;
    const numRunning = this.#numSent - this.#numDone;
    const text = `  ${this.#numDone} of ${this.total} requests done, ${numRunning} running`;
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

function start(
  host: string,
  port: number,
  more: readonly string[],
  signal: AbortSignal,
): Promise<RunningServer> {
  const baseUrl = urlOf(host, port);
  const args = [...serving, ...more, `--host=${host}`, `--port=${port}`, "--log-filename="];
  const spec: ServerSpec = {
    name: "llumnix serve",
    command: [...selfCommand(), "serve", ...args],
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
 * @param taken another port, which is not free any more
 * @throws {UsageError} the port is taken, or the host is no address of this machine
 */
function availablePort(host: string, port: number | null, taken: number | null = null): number {
  try {
    using listener = Deno.listen({ hostname: host, port: port ?? 0 });
    if (listener.addr.port === taken) return availablePort(host, port, taken);
    return listener.addr.port;
  } catch (cause) {
    const message = cause instanceof Deno.errors.AddrInUse
      ? `--port ${port} is taken: choose another, or leave it out for a free one`
      : `cannot listen at --host ${host}: expected an address of this machine`;
    throw new UsageError(message, { cause });
  }
}

function failuresOf(rounds: readonly Round[]): string[] {
  const acts = rounds.flatMap(({ without, migrating }) => [without, migrating]);
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

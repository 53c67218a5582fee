/**
 * Measures how soon the program is there: `--version` and `--help` beside a bare `deno eval`, `serve`
 * until it is ready and until its first token, and idle memory. Runs of all of them take turns, so that
 * a busy machine slows all alike; each is given by its fastest run, which was disturbed the least.
 */
import { Client, programCommand, startService } from "./service.ts";
import { median, printTable } from "./table.ts";

const commandRuns = 20;
const serviceRuns = 5;

/** Milliseconds of one run of a command. */
async function timeCommand(words: readonly string[]): Promise<number> {
  const [program, ...args] = words;
  const startedMs = performance.now();
  const { success } = await new Deno.Command(program, { args, stdout: "null", stderr: "null" })
    .output();
  if (!success) throw new Error(`${words.join(" ")} failed`);
  return performance.now() - startedMs;
}

async function benchCommands(): Promise<void> {
  const program = await programCommand();
  const commands: Readonly<Record<string, readonly string[]>> = {
    "deno eval": [Deno.execPath(), "eval", "1"],
    "--version": [...program, "--version"],
    "--help": [...program, "--help"],
    "serve --help": [...program, "serve", "--help"],
  };
  const times = Object.entries(commands)
    .map(([name, words]) => ({ name, words, all: [] as number[] }));
  for (let run = -1; run < commandRuns; run++) {
    for (const { words, all } of times) {
      const ms = await timeCommand(words);
      if (run >= 0) all.push(ms); // the first run may unpack the executable
    }
  }
  const least = Math.min(...times[0].all);
  printTable(
    `Commands, ${commandRuns} runs in turns`,
    times.map(({ name, all }) => ({
      "command": name,
      "fastest ms": Math.min(...all).toFixed(0),
      "median ms": median(all).toFixed(0),
      "above deno eval ms": (Math.min(...all) - least).toFixed(0),
    })),
  );
}

async function benchServe(): Promise<void> {
  const readyMs: number[] = [], tokenMs: number[] = [], residentMiB: number[] = [];
  for (let run = -1; run < serviceRuns; run++) {
    const startedMs = performance.now();
    await using service = await startService([]);
    using client = await Client.connect(service.port);
    await client.post("/v1/completions", { prompt: "Hello", max_tokens: 1 });
    await client.readBody();
    const firstTokenMs = performance.now() - startedMs;
    if (run < 0) continue; // the first run may unpack the executable
    readyMs.push(service.startMs);
    tokenMs.push(firstTokenMs);
    residentMiB.push(await service.residentBytes() / (1 << 20));
  }
  printTable(`Start of \`serve\` with the default model, ${serviceRuns} runs`, [{
    "ready, fastest ms": Math.min(...readyMs).toFixed(0),
    "ready, median ms": median(readyMs).toFixed(0),
    "first token, median ms": median(tokenMs).toFixed(0),
    "resident MiB (server and instance)": median(residentMiB).toFixed(0),
  }]);
}

/** Runs the benchmark. */
export async function benchStartup(): Promise<void> {
  await benchCommands();
  await benchServe();
}

if (import.meta.main) await benchStartup();

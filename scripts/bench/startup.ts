/** Measures the time from the command to the first token with the built-in model, and idle memory. */
import { Client, startService } from "./service.ts";
import { median, printTable } from "./table.ts";

const runs = 5;

/** Runs the benchmark. */
export async function benchStartup(): Promise<void> {
  const readyMs: number[] = [], tokenMs: number[] = [], residentMiB: number[] = [];
  for (let run = -1; run < runs; run++) {
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
  printTable("Start of `serve` with the built-in model, warm, median", [{
    "ready ms": median(readyMs).toFixed(0),
    "first token ms": median(tokenMs).toFixed(0),
    "resident MiB (server and instance)": median(residentMiB).toFixed(0),
  }]);
}

if (import.meta.main) await benchStartup();

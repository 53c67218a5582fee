/**
 * What others notice while one client, or eight at once, send requests that are made to hurt: the longest gap
 * of a stream, the longest answer of /health, and memory, each beyond what a quiet run shows.
 */
import { attackNames, type AttackReport } from "../../test/e2e/_attackers.ts";
import { Attackers, type Observation, observe } from "../../test/e2e/attacks.ts";
import { startServer } from "../../test/e2e/harness.ts";
import { printTable } from "./table.ts";

const quietMs = 5_000, attackMs = 4_000;
const clientCounts = [1, 8];

/** What section 1 of the requirements allows beyond the quiet run. */
const bound = { delayMs: 250, memoryBytes: 1e9 };

/** Runs the benchmark, against the built executable. */
export async function benchAttacks(): Promise<void> {
  using attackers = new Attackers();
  await attackers.ready;
  await using server = await startServer(["--disable-log-requests"]);
  const { url, program } = server;
  const processes = () => program.processes();
  const pause = new Promise((resolve) => setTimeout(resolve, quietMs));
  const quiet = await observe(url, processes, pause);
  const rows = [];
  for (const name of attackNames) {
    for (const clients of clientCounts) {
      const order = { url, durationMs: attackMs, clients, names: [name] };
      const reported = attackers.attack(order);
      const attacked = await observe(url, processes, reported);
      rows.push(rowOf(name, clients, await reported, attacked, quiet));
    }
  }
  await program.stopWell();
  const { gapMs, healthMs, memoryBytes } = quiet;
  console.log(
    `\nquiet: longest gap ${gapMs.toFixed(0)} ms, longest /health ${healthMs.toFixed(0)} ms, ` +
      `${(memoryBytes / 1e6).toFixed(0)} MB`,
  );
  printTable("Beyond the quiet run, while clients send", rows);
}

function rowOf(
  name: string,
  clients: number,
  report: AttackReport,
  attacked: Observation,
  quiet: Observation,
): Record<string, string> {
  const gapMs = attacked.gapMs - quiet.gapMs;
  const healthMs = attacked.healthMs - quiet.healthMs;
  const memoryBytes = attacked.memoryBytes - quiet.memoryBytes;
  const isWithin = Math.max(gapMs, healthMs) < bound.delayMs && memoryBytes < bound.memoryBytes;
  const answers = Object.entries(report[name]).map(([status, count]) =>
    `${status === "0" ? "left" : status}: ${count}`
  );
  return {
    "request": name,
    "clients": String(clients),
    "gap ms": gapMs.toFixed(0),
    "/health ms": healthMs.toFixed(0),
    "memory MB": (memoryBytes / 1e6).toFixed(0),
    "within bounds": isWithin ? "yes" : "NO",
    "answers": answers.join(", "),
  };
}

if (import.meta.main) await benchAttacks();

/**
 * Runs a service on three hosts with real lease stores, takes processes, hosts and networks away, and measures
 * how long it stands still. Every stream has to be that of a quiet run, and no request may be lost or run
 * twice.
 *
 *   deno run -A scripts/hosts.ts [PATTERN]
 *
 * Runs the built executable (`deno task build`) on Linux, as root: hosts are network namespaces. etcd,
 * nats-server and nft are found on PATH or below LLUMNIX_STORE_SERVERS (src/cluster/README.md); what needs a
 * program that is not there is skipped and counted. With PATTERN, a regular expression, only scenarios whose
 * "STORE: NAME" it matches run. A run of all takes about 20 minutes and writes its outcome to
 * `test/hosts.md`. Exit code 1 if something does not hold; logs are then in a directory that is named.
 */
import { join } from "node:path";
import { type Report, reportOf, type Skipped } from "./hosts/report.ts";
import { problemOf, type Result, runScenario } from "./hosts/run.ts";
import { type Scenario, scenarios } from "./hosts/scenarios.ts";
import { describeCommit, writeReport } from "./report_file.ts";

const file = new URL("../test/hosts.md", import.meta.url);
let logDirectory: string | null = null;
let isInterrupted = false;
const interrupted = Promise.withResolvers<never>();
interrupted.promise.catch(() => {}); // between two scenarios
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.addSignalListener(signal, () => {
    isInterrupted = true;
    interrupted.reject(new Error(`got ${signal}`));
  });
}

function nameOf({ store, name }: Scenario): string {
  return `${store}: ${name}`;
}

async function runAll(chosen: readonly Scenario[]): Promise<Report> {
  const results: Result[] = [], skipped: Skipped[] = [], broken: Skipped[] = [];
  const built = await describeCommit(); // before others change the tree
  for (const scenario of chosen) {
    const name = nameOf(scenario);
    const reason = await problemOf(scenario);
    if (reason !== null) {
      console.log(`${name}: skipped: ${reason}`);
      skipped.push({ name, reason });
      continue;
    }
    try {
      const onLogs = (logs: string) => keepLogs(name, logs);
      const result = await runScenario(scenario, onLogs, interrupted.promise);
      results.push(result);
      console.log(summaryOf(name, result));
    } catch (error) {
      if (isInterrupted) throw error;
      console.error(`${name}: broke off`, error);
      broken.push({ name, reason: (error as Error).message.split("\n")[0] });
    }
  }
  return { commit: built, results, skipped, broken };
}

function summaryOf(name: string, result: Result): string {
  const { dispatchPauseMs, leaderPauseMs, quietPauseMs, streamPauseMs, newEpochs } = result;
  const { outcome, problems } = result;
  const ms = (value: number) => `${Math.round(value)} ms`;
  return `${name}: dispatches ${ms(dispatchPauseMs)}, leader ${ms(leaderPauseMs)}, quiet ${
    ms(quietPauseMs)
  }, streams ${
    ms(streamPauseMs)
  }, ${newEpochs} new epochs, ${outcome.equal} streams, ${outcome.answered} small requests, ` +
    `${result.vainTokens ?? "unknown"} tokens computed that no client got: ${
      problems.join("; ") || "holds"
    }`;
}

async function keepLogs(name: string, logs: string): Promise<void> {
  logDirectory ??= await Deno.makeTempDir({ prefix: "llumnix-hosts-logs-" });
  const path = join(logDirectory, `${name.replace(/[^A-Za-z0-9]+/g, "-")}.log`);
  await Deno.writeTextFile(path, logs);
  console.log(`logs: ${path}`);
}

const [pattern = ""] = Deno.args;
if (Deno.args.length > 1) {
  console.error(`${Deno.args.join(" ")}: expected at most one regular expression`);
  Deno.exit(2);
}
const chosen = scenarios.filter((scenario) => new RegExp(pattern).test(nameOf(scenario)));
if (chosen.length === 0) {
  console.error(`${pattern}: no scenario matches: ${scenarios.map(nameOf).join("; ")}`);
  Deno.exit(2);
}
const report = await runAll(chosen);
const text = reportOf(report);
console.log(text);
if (chosen.length === scenarios.length) await writeReport(file, text);
const numPassed = report.results.filter(({ problems }) => problems.length === 0).length;
const numFailed = report.results.length - numPassed + report.broken.length;
console.log(`${numPassed} passed, ${numFailed} failed, ${report.skipped.length} skipped`);
if (numFailed > 0) Deno.exit(1);

/** The report of `llumnix doctor --cluster` as text. */
import { textTable } from "../../../report/text_table.ts";
import { section } from "../text.ts";
import { wrap } from "../../help.ts";
import type { AddressReport, ClusterDoctorReport, HostReport, PathReport } from "./report.ts";

const WIDTH = 98;
/** Lines of a table; `--json` has all of them. */
const MAX_ROWS = 64;

export function clusterReportText(report: ClusterDoctorReport): string {
  const { cluster, tookMs, hosts, addresses, paths, warnings, problems } = report;
  const sections = [
    `Cluster ${cluster}, examined in ${(tookMs / 1000).toFixed(1)} s`,
    section("Lease store", storeLines(report)),
    section("Leader", leaderLines(report)),
  ];
  if (hosts.length > 0) {
    const header = ["host", "agent", "slots", "instances", "reached", "clock", "version"];
    sections.push(section("Hosts", table(header, hosts.map((one) => hostRow(one, report)))));
  }
  if (addresses.length > 0) {
    const header = ["who", "host", "address", "from here"];
    sections.push(
      section("Addresses that others are told", table(header, addresses.map(addressRow))),
    );
  }
  if (paths.length > 0) {
    const header = ["from", "to", "round trip", "MB/s", ...tokensOf(report, null)];
    const rows = paths.map((path) => pathRow(path, report));
    sections.push(
      section("Paths, over one connection with up to 4 MiB on the way", table(header, rows)),
    );
  }
  sections.push(section("Move or recompute", crossoverLines(report)));
  if (warnings.length > 0) sections.push(section("Warnings", wrapped(warnings)));
  sections.push(problems.length > 0 ? section("Problems", wrapped(problems)) : "All is well.");
  // What other processes say goes to a terminal.
  return sections.join("\n\n").replace(/(?!\n)\p{Cc}/gu, "?");
}

function storeLines({ store }: ClusterDoctorReport): string[] {
  const { name, server, place, readMs, writeMs, failure } = store;
  const what = [name, ...server === null ? [] : [server], ...place === null ? [] : [place]];
  if (failure !== null) return [what.join(", "), "cannot be used: see Problems"];
  const write = writeMs === null ? "cannot be written" : `compare-and-set ${milliseconds(writeMs)}`;
  return [what.join(", "), `read ${milliseconds(readMs!)}, ${write}`];
}

function leaderLines({ leader, settings }: ClusterDoctorReport): string[] {
  const { state, process, address, epoch, leaseMs, beatMs, watchedMs } = leader;
  if (process === null) return [`none (${state})`];
  const lease = `lease ${(leaseMs! / 1000).toFixed(1)} s`;
  const beat = beatMs === null
    ? `its record did not change in ${(watchedMs / 1000).toFixed(1)} s (${lease})`
    : `its record changed within ${(beatMs / 1000).toFixed(1)} s (${lease})`;
  const lines = [`${process} at ${address}, epoch ${epoch}; ${beat}`];
  if (settings === null) return lines;
  const { model, dtype, maxModelLen } = settings;
  return [...lines, `serves ${model} (${dtype}, up to ${maxModelLen} tokens)`];
}

function hostRow(host: HostReport, { addresses }: ClusterDoctorReport): string[] {
  const { slots, instances, numAddresses, numReached, versions, clock } = host;
  const leads = addresses.some(({ who, host: name }) => who === "leader" && name === host.host);
  return [
    host.host,
    host.agent,
    slots === null ? "-" : String(slots),
    String(instances),
    `${numReached} of ${numAddresses}`,
    leads ? "(leader)" : clock === null ? "?" : signed(clock.aheadMs, clock.uncertaintyMs),
    versions.join(" and ") || "?",
  ];
}

function addressRow({ who, host, address, clock }: AddressReport): string[] {
  return [who, host ?? "?", address, clock === null ? "no" : milliseconds(clock.roundTripMs)];
}

function pathRow(path: PathReport, report: ClusterDoctorReport): string[] {
  const { from, to, speed } = path;
  const rate = speed === null ? "no" : (speed.bytesPerSecond / 1e6).toFixed(1);
  const trip = speed === null ? "-" : milliseconds(speed.roundTripMs);
  return [from, to, trip, rate, ...tokensOf(report, path)];
}

/** The column of tokens: its header for null, nothing where nothing is known of tokens. */
function tokensOf({ crossover }: ClusterDoctorReport, path: PathReport | null): string[] {
  if (crossover === null) return [];
  if (path === null) return ["tokens/s moved"];
  const { speed } = path;
  return [
    speed === null ? "-" : String(Math.round(speed.bytesPerSecond / crossover.bytesPerToken)),
  ];
}

function crossoverLines({ crossover, paths, hosts }: ClusterDoctorReport): string[] {
  if (crossover === null) {
    const why = paths.length > 0
      ? "no instance that was reached says what a token costs"
      : hosts.length > 1
      ? "no path between hosts was measured"
      : "there are fewer than two hosts";
    return [`not known: ${why}`];
  }
  const { from, to, bytesPerToken, movedTokensPerSecond, prefillTokensPerSecond, faster } =
    crossover;
  const path =
    `The slowest path, from ${from} to ${to}, moves ${movedTokensPerSecond} tokens/s of ` +
    `${bytesPerToken} bytes of KV cache. `;
  const verdict = faster === null
    ? "No prompt has been computed yet: --prefill-tokens-per-second gives the verdict."
    : `Instances compute ${prefillTokensPerSecond} tokens/s of a prompt: ` +
      (faster === "move"
        ? "moving a request is faster, but for short ones."
        : "recomputing a request is faster.");
  return wrap(path + verdict, WIDTH, "").split("\n");
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const lines = textTable(header, rows.slice(0, MAX_ROWS)).split("\n");
  return rows.length <= MAX_ROWS ? lines : [...lines, `${rows.length - MAX_ROWS} more (--json)`];
}

function wrapped(texts: readonly string[]): string[] {
  return texts.flatMap((text) => wrap(`- ${text}`, WIDTH, "").split("\n"))
    .map((line) => line.startsWith("- ") ? line : `  ${line}`);
}

function milliseconds(ms: number): string {
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

function signed(ms: number, uncertaintyMs: number): string {
  return `${ms < 0 ? "-" : "+"}${milliseconds(Math.abs(ms))} ± ${milliseconds(uncertaintyMs)}`;
}

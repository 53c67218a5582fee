/** The report of `llumnix doctor` as text. */
import type { LibraryReport } from "../../../ffi/survey.ts";
import { textTable } from "../../report/text_table.ts";
import { wrap } from "../help.ts";
import type { CrossoverReport, DoctorReport, PathReport, UcxFileReport } from "./report.ts";

/** Reasons that a line shows; `--json` has all of them. */
const SHOWN_REASON = 160;
const WIDTH = 98;

export function reportText(report: DoctorReport): string {
  const { host, driver } = report;
  const limit = host.controlGroupFreeBytes;
  const sections = [
    section("Host", [
      `${host.cpus} CPUs, ${gib(host.availableBytes)} of ${gib(host.totalBytes)} memory available`,
      limit === null
        ? "no limit by a control group"
        : `the control group leaves ${gib(Math.max(0, limit))}`,
    ]),
    section(
      "CPU kernels",
      report.cpuKernels.map(({ set, unavailable }) =>
        `${set.padEnd(11)} ${unavailable === null ? "available" : `no: ${unavailable}`}`
      ),
    ),
    section("NVIDIA driver and devices", [driverLine(report), ...deviceLines(report)]),
    section("Libraries", report.libraries.map(libraryLine)),
    section("UCX transports", ucxLines(report.ucx)),
    section(
      "Migration backends",
      report.migrationBackends.flatMap(({ name, hostPoolProblem, devicePoolProblem }) => [
        `${name.padEnd(11)} host pools:   ${verdict(hostPoolProblem, false)}`,
        `${"".padEnd(11)} device pools: ${verdict(devicePoolProblem, driver.softwareDevice)}`,
      ]),
    ),
    pathsText(report),
    crossoverText(report.crossover),
  ];
  if (report.notes.length > 0) sections.push(section("Notes", report.notes));
  const { problems } = report;
  sections.push(
    problems.length === 0
      ? "--device cpu works here."
      : section("Problems: --device cpu does not work here", problems),
  );
  return sections.join("\n\n");
}

/** A title, and its lines indented. */
export function section(title: string, lines: readonly string[]): string {
  return [title, ...lines.map((line) => `  ${line}`)].join("\n");
}

function driverLine({ driver }: DoctorReport): string {
  const { state, driverVersion, libraryVersion, library, softwareDevice, reason } = driver;
  if (state === "ready") {
    const real = `CUDA ${driverVersion}, used by ${library} ${libraryVersion}`;
    return softwareDevice ? `software device (no GPU): ${real}` : `driver for ${real}`;
  }
  const versions = state === "driver too old"
    ? ` (driver: CUDA ${driverVersion}, library: CUDA ${libraryVersion})`
    : "";
  const [said] = (reason ?? "").split(" Seen: "); // the libraries' lines say what was seen
  return `${state}${versions}: ${firstLine(said)}`;
}

function deviceLines({ devices, driver }: DoctorReport): string[] {
  return devices.map((device) => {
    const peers = device.peers.length === 0 ? "none" : device.peers.join(", ");
    return `device ${device.ordinal}: ${device.name}, compute capability ` +
      `${device.computeCapability.join(".")}, ${gib(device.freeBytes)} of ` +
      `${gib(device.totalBytes)} free, peer access: ${peers}${label(driver.softwareDevice)}`;
  });
}

function libraryLine({ name, path, version, softwareDevice, failure, others }: LibraryReport) {
  const title = name.padEnd(11);
  if (failure !== null) {
    return `${title} no: ${firstLine(failure.replace(`${name} cannot be opened. `, ""))}`;
  }
  const more = others.length === 0 ? "" : ` (and ${others.length} more: --json)`;
  return `${title} ${version ?? "unknown version"} at ${path}${label(softwareDevice)}${more}`;
}

function ucxLines(files: readonly UcxFileReport[]): string[] {
  if (files.length === 0) return ["none: no UCX was found"];
  return files.flatMap(({ path, version, devices, memoryTypes, failure }) => {
    if (failure !== null) return [`${path}: ${firstLine(failure)}`];
    const transports = [...new Set((devices ?? []).map(({ transport }) => transport))];
    return [
      `${version} at ${path}`,
      `  memory: ${memoryTypes?.join(", ")}; transports: ${transports.join(", ") || "none"}`,
    ];
  });
}

function verdict(problem: string | null, softwareDevice: boolean): string {
  return problem === null ? `works${label(softwareDevice)}` : `no: ${firstLine(problem)}`;
}

function pathsText({ paths }: DoctorReport): string {
  const rows = paths.measured.map((path) => [
    path.path + label(path.softwareDevice),
    rate(path, path.forwardGBps),
    rate(path, path.backGBps),
  ]);
  const title = `Measured in ${(paths.tookMs / 1000).toFixed(1)} s, with buffers of ` +
    `${paths.bufferBytes >> 20} MiB (GB/s of bytes copied)`;
  const failures = paths.measured.flatMap(({ path, failure }) =>
    failure === null ? [] : [`${path}: not measured: ${firstLine(failure)}`]
  );
  const table = textTable(["path", "there", "back"], rows).split("\n");
  return section(title, [...table, ...failures]);
}

function rate({ failure }: PathReport, value: number | null): string {
  return failure !== null || value === null ? "-" : String(value);
}

function crossoverText(crossover: CrossoverReport): string {
  const { model, dtype, bytesPerToken, prefillTokensPerSecond: prefill } = crossover;
  const explanation = `A token of ${model} (${dtype}) has ${bytesPerToken} bytes of KV cache. ` +
    "Recomputing a request is faster than moving it where the destination prefills more tokens " +
    "a second than the path moves (its GB/s by those bytes).";
  const advice = prefill === null
    ? "--prefill-tokens-per-second gives the verdict."
    : `Compared with ${prefill} prefill tokens a second.`;
  const rows = crossover.paths.map(({ path, movedTokensPerSecond, faster }) => [
    path,
    String(movedTokensPerSecond),
    ...faster === null ? [] : [faster],
  ]);
  const header = ["path", "tokens/s moved", ...prefill === null ? [] : ["faster"]];
  const table = rows.length === 0 ? [] : textTable(header, rows).split("\n");
  const lines = wrap(`${explanation} ${advice}`, WIDTH, "").split("\n");
  return section("Move or recompute", [...lines, ...table]);
}

function label(softwareDevice: boolean): string {
  return softwareDevice ? " (software device, no GPU)" : "";
}

/** A reason on one line; of a list of places that were tried, the first. */
function firstLine(text: string): string {
  const [first, ...rest] = text.split("\n");
  const tried = rest.filter((line) => line.startsWith("  ")).map((line) => line.trim());
  const more = tried.length > 1 ? ` and ${tried.length - 1} more (--json)` : "";
  const whole = tried.length === 0 ? first : `${first} ${tried[0]}${more}`;
  return whole.length <= SHOWN_REASON ? whole : `${whole.slice(0, SHOWN_REASON)}… (--json)`;
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

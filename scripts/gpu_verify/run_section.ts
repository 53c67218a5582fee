/** Runs a section in a process of its own, and reads what it says. */
import type { DoctorReport } from "../../src/cli/doctor/report.ts";
import type { Finding } from "./device.ts";
import type { Section, Target } from "./sections.ts";

export interface SectionResult {
  readonly name: string;
  readonly shows: string;
  readonly outcome: "passed" | "failed" | "timed out" | "not run";
  readonly tookS: number;
  readonly limitS: number;
  readonly findings: readonly Finding[];
  /** The end of its output if it did not pass, else "". */
  readonly complaint: string;
}

/** Of the output, kept for a complaint. */
const KEPT_CHARACTERS = 4_000;
/** Of the output, read at most. */
const MOST_CHARACTERS = 4 << 20;

/**
 * Runs `deno` with the words of the section. A section that is over its limit is killed with the
 * processes of its group.
 */
export async function runSection(
  section: Section,
  target: Target,
  limitS: number,
  env: Readonly<Record<string, string>>,
): Promise<SectionResult> {
  const { name, shows } = section;
  const startMs = performance.now();
  // A process group of its own: the processes that it starts end with it.
  const child = new Deno.Command("setsid", {
    args: [Deno.execPath(), ...section.command(target)],
    cwd: new URL("../..", import.meta.url),
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    killGroup(child.pid);
  }, limitS * 1000);
  const [stdout, stderr, { success }] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr),
    child.status,
  ]);
  clearTimeout(timer);
  killGroup(child.pid);
  const tookS = Number(((performance.now() - startMs) / 1000).toFixed(1));
  const { findings, isEmpty } = read(section.output, stdout);
  const outcome = isLate ? "timed out" : success && !isEmpty ? "passed" : "failed";
  const complaint = outcome === "passed"
    ? ""
    : isEmpty && success
    ? "it showed nothing"
    : `${stdout}\n${stderr}`.trim().slice(-KEPT_CHARACTERS);
  return { name, shows, outcome, tookS, limitS, findings, complaint };
}

/** What a section found. Empty: it ended well and showed nothing, which is no pass. */
export function read(
  output: Section["output"],
  stdout: string,
): { findings: readonly Finding[]; isEmpty: boolean } {
  if (output === "tests") return readTests(stdout);
  const findings = output === "doctor" ? readDoctor(stdout) : readFindings(stdout);
  return { findings, isEmpty: findings.length === 0 };
}

function readTests(stdout: string) {
  const [, passed, failed, ignored = "0"] =
    /(\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed(?:.*?\| (\d+) ignored)?/.exec(stdout) ?? [];
  if (passed === undefined) return { findings: [], isEmpty: true };
  const value = `${passed} passed, ${failed} failed, ${ignored} skipped`;
  return { findings: [{ name: "tests", value }], isEmpty: passed === "0" };
}

function readFindings(stdout: string): Finding[] {
  return stdout.split("\n").flatMap((line) => {
    if (!line.startsWith("{")) return [];
    try {
      const { name, value, goal, measured } = JSON.parse(line);
      if (typeof name !== "string" || typeof value !== "string") return [];
      return [{ name, value, ...typeof measured === "number" && { goal, measured } }];
    } catch {
      return []; // a line that its end has cut off
    }
  });
}

function readDoctor(stdout: string): Finding[] {
  let report: DoctorReport;
  try {
    report = JSON.parse(stdout);
  } catch {
    return [];
  }
  const { driver, devices, libraries, paths } = report;
  return [
    { name: "driver", value: `${driver.state}, CUDA ${driver.driverVersion}` },
    ...devices.map(({ ordinal, name, computeCapability, totalBytes }) => ({
      name: `device ${ordinal}`,
      value: `${name}, compute capability ${computeCapability.join(".")}, ` +
        `${(totalBytes / 2 ** 30).toFixed(1)} GiB`,
    })),
    ...libraries.map(({ name, version, path }) => ({
      name,
      value: path === null ? "none" : `${version} at ${path}`,
    })),
    ...paths.measured.map(({ path, forwardGBps, backGBps, failure }) => ({
      name: path,
      value: failure ?? `${forwardGBps} GB/s there, ${backGBps} GB/s back`,
    })),
  ];
}

async function textOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let text = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    if (text.length < MOST_CHARACTERS) text += chunk;
  }
  return text;
}

function killGroup(pid: number): void {
  try {
    Deno.kill(-pid, "SIGKILL");
  } catch {
    // All of it has ended.
  }
}

/** The report of a verification, as JSON and as Markdown. */
import { type GoalOutcome, goalOutcomes, goalText } from "./goals.ts";
import type { SectionResult } from "./run_section.ts";

export interface VerifyReport {
  readonly date: string;
  readonly commit: string;
  /** True: nothing in the report says anything of a GPU. */
  readonly softwareDevice: boolean;
  /** Shapes are small, as for a test of the script. */
  readonly short: boolean;
  readonly sections: readonly SectionResult[];
}

/** Writes both files, each whole or not at all. */
export async function writeReport(directory: string, report: VerifyReport): Promise<void> {
  await Deno.mkdir(directory, { recursive: true });
  const whole = { ...report, goals: goalsOf(report) };
  await replace(`${directory}/gpu_verify.json`, `${JSON.stringify(whole, null, 2)}\n`);
  await replace(`${directory}/gpu_verify.md`, markdown(report));
}

/** All goals, including those without a measurement. */
export function goalsOf({ sections }: VerifyReport): GoalOutcome[] {
  const measured = sections.flatMap(({ findings }) => findings).flatMap(({ goal, measured }) =>
    goal === undefined ? [] : [[goal, measured!] as const]
  );
  return goalOutcomes(new Map(measured));
}

/** The report as Markdown. On the software device every line says so. */
export function markdown(report: VerifyReport): string {
  const mark = report.softwareDevice ? " (software device, no GPU)" : "";
  const lines = [
    `# GPU verification${mark}`,
    `${report.date}, commit ${report.commit}${report.short ? ", short form" : ""}${mark}`,
    `## Goals${mark}`,
    ...goalsOf(report).map((outcome) => `- ${goalText(outcome)}${mark}`),
    ...report.sections.flatMap((section) => [
      `## ${section.name}: ${section.outcome}${mark}`,
      `${capital(section.shows)}. ${section.tookS} s of ${section.limitS} s${mark}`,
      ...section.findings.map(({ name, value }) => `- ${name}: ${value}${mark}`),
      ...section.complaint.split("\n").filter(Boolean).map((line) => `    ${line}${mark}`),
    ]),
  ];
  return lines.map((line, i) => {
    const previous = lines[i - 1] ?? "";
    const kind = (text: string) => text.startsWith("- ") ? 1 : text.startsWith("    ") ? 2 : 0;
    const isList = kind(line) !== 0 && kind(line) === kind(previous);
    return i === 0 || isList ? line : `\n${line}`;
  }).join("\n") + "\n";
}

/** One line for the terminal. */
export function summary({ name, outcome, tookS, complaint }: SectionResult, mark: string): string {
  const reason = complaint === "" ? "" : `: ${complaint.split("\n").at(-1)}`;
  return `${name.padEnd(12)} ${outcome.padEnd(9)} ${tookS} s${mark}${reason}`;
}

function capital(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

async function replace(path: string, text: string): Promise<void> {
  await Deno.writeTextFile(`${path}.partial`, text);
  await Deno.rename(`${path}.partial`, path);
}

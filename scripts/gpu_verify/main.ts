/** The program behind `scripts/gpu_verify.sh`, which says how it is used. */
import { openCuda } from "../../ffi/cuda/open.ts";
import { buildSoftwareDevice } from "../build_software_device.ts";
import { summary, type VerifyReport, writeReport } from "./report.ts";
import { runSection, type SectionResult } from "./run_section.ts";
import { type Section, sections, turnsOf } from "./sections.ts";

/** All sections together; the call has nine minutes. */
const LIMIT_S = 525;
/** The software device may take so much longer for small shapes than a GPU for large ones. */
const SOFTWARE_FACTOR = 2;

export interface Arguments {
  readonly sections: readonly Section[];
  readonly out: string | null;
  readonly short: boolean;
  readonly softwareDevice: boolean;
}

/**
 * Reads the words after the script's name.
 * @throws {Error} one that it does not know
 */
export function readArguments(words: readonly string[]): Arguments {
  let chosen = sections, out: string | null = null, short = false, softwareDevice = false;
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    const value = () => {
      if (words[i + 1] === undefined) throw new Error(`${word}: expected a value`);
      return words[++i];
    };
    if (word === "--sections") chosen = sectionsOf(value());
    else if (word === "--out") out = value();
    else if (word === "--short") short = true;
    else if (word === "--software-device") softwareDevice = true;
    else throw new Error(`unknown argument: ${word} (--help lists them)`);
  }
  return { sections: chosen, out, short, softwareDevice };
}

function sectionsOf(list: string): Section[] {
  const names = list.split(",");
  const unknown = names.find((name) => sections.every((section) => section.name !== name));
  if (unknown !== undefined) {
    const known = sections.map(({ name }) => name).join(", ");
    throw new Error(`unknown section: ${unknown}; expected some of ${known}`);
  }
  return sections.filter(({ name }) => names.includes(name));
}

/** What the sections run on: a GPU of this host, else the software device. */
async function findDevice(wantsSoftware: boolean) {
  if (!wantsSoftware) {
    try {
      const cuda = openCuda();
      if (cuda.deviceCount() > 0) {
        const { softwareDevice } = cuda.library;
        return { softwareDevice, env: softwareDevice ? deviceSettings : gpuEnvironment };
      }
      console.error("gpu_verify: no GPU: the driver shows no device");
    } catch (error) {
      console.error(`gpu_verify: no GPU: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  const built = await buildSoftwareDevice();
  if ("missing" in built) throw new Error(`no GPU, and no software device: ${built.missing}`);
  return {
    softwareDevice: true,
    env: { ...deviceSettings, LLUMNIX_CUDA_LIBRARIES: built.directory.replace(/\/$/, "") },
  };
}

const deviceSettings = { LLUMNIX_SOFTWARE_DEVICE: "devices=1,memory=1G,progress=20" };
/** On a GPU the tests need no software device: without a compiler they do not build it. */
const gpuEnvironment = { CXX: "no-compiler-for-gpu-verify" };

async function commitOf(): Promise<string> {
  try {
    const { stdout } = await new Deno.Command("git", { args: ["rev-parse", "--short", "HEAD"] })
      .output();
    return new TextDecoder().decode(stdout).trim() || "unknown";
  } catch {
    return "unknown"; // no git, as on a bare host
  }
}

/** Runs all sections, also after one has failed. @returns whether all passed */
export async function verify(given: Arguments): Promise<boolean> {
  const startMs = performance.now();
  const { softwareDevice, env } = await findDevice(given.softwareDevice);
  const mark = softwareDevice ? " (software device, no GPU)" : "";
  const date = new Date().toISOString().slice(0, 16).replace("T", " ");
  const out = given.out ?? Deno.env.get("OUT") ??
    (softwareDevice ? "dist/gpu_verify" : `scripts/gpu_reports/${date.slice(0, 10)}`);
  const commit = await commitOf();
  const short = given.short || softwareDevice;
  const results = new Map<Section, SectionResult>();
  const resultOf = async (section: Section): Promise<SectionResult> => {
    const factor = softwareDevice ? SOFTWARE_FACTOR : 1;
    const leftS = factor * LIMIT_S - (performance.now() - startMs) / 1000;
    const limitS = Math.floor(Math.min(factor * section.limitS, leftS));
    const { name, shows } = section;
    if (limitS < 5) {
      return {
        ...{ name, shows, outcome: "not run", tookS: 0, limitS, findings: [] },
        complaint: "no time was left: run it by --sections",
      };
    }
    return await runSection(section, { softwareDevice }, limitS, {
      ...env,
      ...short ? { GPU_VERIFY_SHORT: "1" } : {},
      ...softwareDevice ? { GPU_VERIFY_SOFTWARE_DEVICE: "1" } : {},
    });
  };
  let written = Promise.resolve();
  /** Writes the report of all results so far, once the writes before it have ended. */
  const write = () =>
    written = written.then(async () => {
      const inOrder = given.sections.flatMap((section) => results.get(section) ?? []);
      const report: VerifyReport = { date, commit, softwareDevice, short, sections: inOrder };
      await writeReport(out, report);
    });
  for (const { sections, places } of turnsOf(given.sections, navigator.hardwareConcurrency)) {
    const waiting = [...sections];
    const runThem = async () => {
      for (let section = waiting.shift(); section !== undefined; section = waiting.shift()) {
        const result = await resultOf(section);
        results.set(section, result);
        console.log(summary(result, mark));
        await write();
      }
    };
    await Promise.all(Array.from({ length: Math.min(places, sections.length) }, runThem));
  }
  console.log(`report: ${out}/gpu_verify.md${mark}`);
  return [...results.values()].every(({ outcome }) => outcome === "passed");
}

if (import.meta.main) {
  let given: Arguments;
  try {
    given = readArguments(Deno.args);
  } catch (error) {
    console.error(`gpu_verify: error: ${(error as Error).message}`);
    Deno.exit(2);
  }
  try {
    if (!await verify(given)) Deno.exit(1);
  } catch (error) {
    console.error(`gpu_verify: error: ${(error as Error).message}`);
    Deno.exit(1);
  }
}

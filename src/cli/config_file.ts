/**
 * The configuration file: YAML with the sections SERVER, MANAGER and ENGINE, whose keys are the
 * arguments' names in upper case, and optionally `_BASE_`, the file to inherit from. Files written
 * for Llumnix load.
 */
import { dirname, join, resolve } from "node:path";
import { UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";
import type { Section, Value } from "./arguments/argument.ts";
import type { ArgumentIndex } from "./arguments/index.ts";
import { parseValue, shown } from "./arguments/values.ts";
import { didYouMean } from "../core/suggest.ts";

/** A value of a file. */
export interface FileSetting {
  readonly value: Value;
  readonly path: string;
  /** `SECTION.KEY` */
  readonly key: string;
}

/** The settings of a file and of the files that it inherits from, by argument name. */
export type ConfigFile = ReadonlyMap<string, FileSetting>;

const baseKey = "_BASE_";
const sections: readonly Section[] = ["SERVER", "MANAGER", "ENGINE"];

/**
 * Reads a configuration file and its bases; a file's own values win over its base's.
 * @throws {UsageError} unreadable, not YAML, unknown key, invalid value, or a loop of bases
 */
export async function readConfigFile(path: string, index: ArgumentIndex): Promise<ConfigFile> {
  const chain: string[] = [];
  const settings = new Map<string, FileSetting>();
  for (let next: string | null = path; next !== null;) {
    const current: string = next;
    if (chain.some((earlier) => resolve(earlier) === resolve(current))) {
      throw new UsageError(
        `${path}: files inherit from each other in a loop: ${[...chain, current].join(" -> ")}`,
      );
    }
    const document = await readYaml(current, chain.at(-1) ?? null);
    chain.push(current);
    for (const [key, raw] of entriesOfSections(document, current)) {
      const entry = index.byFileKey.get(key);
      if (entry === undefined) throw unknownKey(key, current, index);
      const value = parseValue(entry.argument, raw, (text) => `${key}: ${text} in ${current}`);
      if (!settings.has(entry.name)) settings.set(entry.name, { value, path: current, key });
    }
    next = baseOf(document, current);
  }
  return settings;
}

type Mapping = Readonly<Record<string, unknown>>;

async function readYaml(path: string, heir: string | null): Promise<Mapping> {
  const name = heir === null ? path : `${path} (${baseKey} of ${heir})`;
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw new UsageError(`cannot read config file ${name}: ${fileProblem(error)}`, {
      cause: error,
    });
  }
  const { loadAll } = await import("js-yaml");
  let documents: unknown[];
  try {
    documents = loadAll(text);
  } catch (error) {
    const { reason, mark } = error as { reason?: string; mark?: { line: number } };
    const place = mark === undefined ? "" : `, line ${mark.line + 1}`;
    throw new UsageError(`${name}${place}: not valid YAML: ${reason ?? error}`, { cause: error });
  }
  const document = documents[0] ?? {};
  if (documents.length > 1 || !isMapping(document)) {
    throw new UsageError(`${name}: expected the sections ${sections.join(", ")}`);
  }
  return document;
}

function* entriesOfSections(document: Mapping, path: string): Generator<[string, unknown]> {
  for (const [section, content] of Object.entries(document)) {
    if (section === baseKey) continue;
    if (!sections.includes(section as Section)) {
      const hint = didYouMean(section, sections);
      throw new UsageError(
        `${path}: unknown section ${shown(section)}; expected ${sections.join(", ")}${hint}`,
      );
    }
    if (content === null) continue;
    if (!isMapping(content)) {
      throw new UsageError(`${path}: section ${section} must hold keys, such as PORT: 8000`);
    }
    for (const [key, value] of Object.entries(content)) yield [`${section}.${key}`, value];
  }
}

/** The file that this one inherits from, or null. */
function baseOf(document: Mapping, path: string): string | null {
  const base = document[baseKey];
  if (base === undefined || base === null) return null;
  if (typeof base !== "string" || base === "") {
    throw new UsageError(`${path}: ${baseKey} must name a file, not ${shown(base)}`);
  }
  if (base === "~" || base.startsWith("~/")) {
    const home = Deno.env.get("HOME");
    if (!home) throw new UsageError(`${path}: ${baseKey}: ${base}: HOME is not set`);
    return join(home, base.slice(1));
  }
  return base.startsWith("/") ? base : join(dirname(path), base);
}

function unknownKey(key: string, path: string, index: ArgumentIndex): UsageError {
  const name = key.slice(key.indexOf(".") + 1);
  const keys = [...index.byFileKey.keys()];
  const elsewhere = keys.find((known) => known.endsWith(`.${name}`));
  const hint = elsewhere === undefined ? didYouMean(key, keys) : `; did you mean ${elsewhere}?`;
  return new UsageError(`${path}: unknown key ${key}${hint}`);
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

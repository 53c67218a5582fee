/** Arguments that are refused or have no effect: the check at start, and the words in help. */
import { UsageError } from "../../core/errors.ts";
import { type Settings, toOptions } from "../settings.ts";
import type { Argument } from "./argument.ts";
import { type DecidingOptions, idleReason } from "./in_force.ts";
import type { ArgumentIndex, Entry } from "./index.ts";
import { shown } from "./values.ts";

/** Something to tell the user before the start goes on. */
export interface Notice {
  readonly severity: "warning" | "info";
  readonly message: string;
}

/**
 * Refuses arguments that this program does not have (yet). An argument that has no effect beside the
 * other settings, such as that of a migration backend that is not chosen, is never refused.
 * @returns a warning per reason why arguments that were set have no effect
 * @throws {UsageError} the first refusal
 */
export function checkStatus(index: ArgumentIndex, settings: Settings): Notice[] {
  const options = toOptions<DecidingOptions>(settings);
  const idle = new Map<string, string[]>();
  for (const entry of index.entries) {
    const { value, source } = settings.get(entry.name)!;
    if (source.kind === "default" || source.kind === "implied") continue;
    const reason = idleReason(entry.name, options) ?? statusReason(entry, value);
    const written = describe(entry, settings);
    if (reason !== null) {
      idle.set(reason, [...idle.get(reason) ?? [], written]);
      continue;
    }
    const refused = value === entry.argument.default ? null : refusal(entry.argument, value);
    if (refused !== null) throw new UsageError(`${written} is ${refused}`);
  }
  return [...idle].map(([reason, written]) => {
    const verb = written.length === 1 ? "has" : "have";
    return { severity: "warning", message: `${inWords(written)} ${verb} no effect${reason}` };
  });
}

/** Ends the sentence "--name has no effect", or null if it has one or is at its default. */
function statusReason({ argument }: Entry, value: unknown): string | null {
  const { status } = argument;
  return status.kind === "accepted" && value !== argument.default ? `: ${status.reason}` : null;
}

function inWords(items: readonly string[]): string {
  if (items.length === 1) return items[0];
  return `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

/** Why a value other than the default cannot be served, or null. */
function refusal(argument: Argument, value: unknown): string | null {
  const { status, refusedChoices, laterChoices } = argument;
  const text = String(value);
  if (Object.hasOwn(refusedChoices, text)) return `not supported: ${refusedChoices[text]}`;
  if (status.kind === "refused") return `not supported: ${status.reason}`;
  if (status.kind !== "later" && !laterChoices.includes(value as string | number)) return null;
  return `not available yet; leave it at its default (${shownValue(argument.default)})`;
}

function shownValue(value: unknown): string {
  if (typeof value === "boolean") return value ? "on" : "off";
  return value === null ? "unset" : shown(value);
}

/** A setting as the user wrote it: `--device neuron`, or `ENGINE.DEVICE: neuron in FILE`. */
function describe({ name, argument }: Entry, settings: Settings): string {
  const { value, source } = settings.get(name)!;
  if (source.kind === "file") return `${source.key}: ${shown(value)} in ${source.path}`;
  return argument.kind === "flag" ? `--${name}` : `--${name} ${shown(value)}`;
}

/** What help says about an argument or choices that do not work; empty if everything works. */
export function statusText(argument: Argument): string {
  const { status, extraChoices, refusedChoices, laterChoices } = argument;
  const sentences: string[] = [];
  if (status.kind === "later") sentences.push("Not available yet.");
  if (status.kind === "refused") sentences.push(`Refused: ${status.reason}.`);
  if (status.kind === "accepted") sentences.push(`No effect: ${status.reason}.`);
  for (const [name, reason] of Object.entries(extraChoices)) {
    sentences.push(`Only here: ${name} (${reason}).`);
  }
  if (laterChoices.length > 0) sentences.push(`Not available yet: ${laterChoices.join(", ")}.`);
  for (const reason of new Set(Object.values(refusedChoices))) {
    const names = Object.keys(refusedChoices).filter((name) => refusedChoices[name] === reason);
    sentences.push(`Refused: ${names.join(", ")} (${reason}).`);
  }
  return sentences.join(" ");
}

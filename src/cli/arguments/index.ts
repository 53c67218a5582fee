/** Finding arguments by the names that users write. */
import { type Argument, fileKey, type Section } from "./argument.ts";
import type { Group } from "./tables.ts";

/** An argument with its name and its place. */
export interface Entry {
  /** Without dashes. */
  readonly name: string;
  readonly argument: Argument;
  /** Null when the configuration file cannot set it. */
  readonly section: Section | null;
}

/** The arguments of one command. */
export class ArgumentIndex {
  /** In the order of help. */
  readonly entries: readonly Entry[];
  /** By option as written on a command line, with dashes. */
  readonly byOption: ReadonlyMap<string, Entry>;
  /** By `SECTION.KEY` of the configuration file. */
  readonly byFileKey: ReadonlyMap<string, Entry>;

  constructor(readonly groups: readonly Group[]) {
    this.entries = groups.flatMap((group) => entriesOf(group));
    const byOption = new Map<string, Entry>();
    const byFileKey = new Map<string, Entry>();
    for (const entry of this.entries) {
      const options = [`--${entry.name}`, ...entry.argument.aliases];
      for (const option of options) {
        byOption.set(option, entry);
        if (entry.section !== null && option.startsWith("--")) {
          byFileKey.set(`${entry.section}.${fileKey(option.slice(2))}`, entry);
        }
      }
    }
    this.byOption = byOption;
    this.byFileKey = byFileKey;
  }
}

/** A group's arguments; each is in the group's section unless it says otherwise. */
export function entriesOf(group: Group): Entry[] {
  return Object.entries(group.table).map(([name, argument]) => ({
    name,
    argument,
    section: argument.section === undefined ? group.section : argument.section,
  }));
}

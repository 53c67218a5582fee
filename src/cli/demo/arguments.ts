/** Arguments of `llumnix demo`. */
import { UsageError } from "../../core/errors.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import { readCommandLine } from "../command_line.ts";
import {
  type ArgumentTable,
  camelCase,
  integer,
  type OptionsOf,
  text,
} from "../arguments/argument.ts";
import type { Group } from "../arguments/tables.ts";

const demoArguments = {
  "host": text({
    section: null,
    default: "127.0.0.1",
    help: "Address at which the page can be opened. 0.0.0.0: from other machines too.",
  }),
  "port": integer({
    section: null,
    default: null,
    defaultText: "a free one",
    min: 1,
    max: 65535,
    help: "Port of the page of the service with migration. The other one gets a free port.",
  }),
  "seconds": integer({
    section: null,
    default: 14,
    min: 2,
    max: 20,
    help: "Length of the load of a round.",
  }),
  "rounds": integer({
    section: null,
    default: 3,
    min: 1,
    max: 3,
    help: "Rounds. Each has requests of its own.",
  }),
  "seed": integer({
    section: null,
    default: 1,
    min: 0,
    max: 1_000_000_000,
    help: "Another seed gives other requests at other times.",
  }),
} satisfies ArgumentTable;

export type DemoOptions = OptionsOf<typeof demoArguments>;

export const demoGroups: readonly Group[] = [
  { title: "Arguments", section: "SERVER", table: demoArguments },
];

/** The options of a command line. @throws {UsageError} a word that is not one of them */
export function demoOptions(argv: readonly string[]): DemoOptions {
  const index = new ArgumentIndex(demoGroups);
  const given = readCommandLine(argv, index);
  const values = index.entries.map(({ name, argument }) => [
    camelCase(name),
    given.get(name) ?? argument.default,
  ]);
  const options: DemoOptions = Object.fromEntries(values);
  if (options.host.startsWith("-")) {
    throw new UsageError(`--host ${options.host}: expected an address such as 127.0.0.1`);
  }
  return options;
}

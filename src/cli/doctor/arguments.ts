/** Arguments of `llumnix doctor`. */
import { ArgumentIndex } from "../arguments/index.ts";
import { readCommandLine } from "../command_line.ts";
import {
  type ArgumentTable,
  camelCase,
  flag,
  number,
  type OptionsOf,
  text,
} from "../arguments/argument.ts";
import { roleExtras } from "../arguments/program.ts";
import type { Group } from "../arguments/tables.ts";
import { vllmArguments } from "../arguments/vllm.ts";

const doctorArguments = {
  "json": flag({
    section: null,
    help: "Print the whole report as JSON, with every place where libraries were looked for.",
  }),
  "self-test": flag({
    section: null,
    help:
      "Compare the kernels of each CUDA device with those of the CPU, for the shapes of --model, and " +
      "print every case. serve does this before its first start on a device.",
  }),
  "model": vllmArguments["model"],
  "revision": vllmArguments["revision"],
  "download-dir": vllmArguments["download-dir"],
  "dtype": vllmArguments["dtype"],
  "prefill-tokens-per-second": number({
    section: null,
    default: null,
    above: 0,
    max: 1e9,
    help: "Prompt tokens that an instance computes in a second. With it the report says for each " +
      "path whether moving a request or recomputing it is faster. With --cluster the default is what " +
      "the instances have measured.",
  }),
  "cluster": text({
    section: null,
    default: null,
    metavar: "URL",
    help: "Examine a service of several hosts in place of this host, by the lease store that its " +
      "processes were given: whether the store can be used, who leads, whether each address can be " +
      "reached from here, clocks, versions, and the speed of the paths between hosts. The hosts' agents " +
      "measure the paths, one at a time, 0.3 s each. Exit code 1: something has to be put right.",
  }),
  "cluster-credentials": roleExtras["cluster-credentials"],
  "cluster-key-file": roleExtras["cluster-key-file"],
  "cluster-insecure": roleExtras["cluster-insecure"],
} satisfies ArgumentTable;

export type DoctorOptions = OptionsOf<typeof doctorArguments>;

export const doctorGroups: readonly Group[] = [
  { title: "Arguments", section: "ENGINE", table: doctorArguments },
];

/** The options of a command line. @throws {UsageError} a word that is not one of them */
export function doctorOptions(argv: readonly string[]): DoctorOptions {
  const index = new ArgumentIndex(doctorGroups);
  const given = readCommandLine(argv, index);
  const all = index.entries.map(({ name, argument }) => [
    camelCase(name),
    given.get(name) ?? argument.default,
  ]);
  return Object.fromEntries(all);
}

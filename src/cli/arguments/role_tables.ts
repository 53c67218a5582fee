/** The arguments of roles that run apart: parts of those of `serve`, and their own. */
import type { ArgumentTable } from "./argument.ts";
import { llumnixArguments } from "./llumnix.ts";
import {
  engineExtras,
  lifecycleExtras,
  orphanExtras,
  processExtras,
  roleExtras,
  serverArguments,
  serverExtras,
} from "./program.ts";
import { engineTable, type Group, programTitle, serveGroups } from "./tables.ts";
import { vllmArguments } from "./vllm.ts";

/** Of `serve`'s own options, those that concern the manager. */
const managerNames = [
  "priority-headroom-blocks",
  "admin-token",
  "shutdown-timeout",
  "print-config",
] as const;

/** Of Llumnix's arguments, those that concern the API server or the instances that it starts. */
const apiServerNames = [
  "config-file",
  "disable-init-instance-by-manager",
  "initial-instances",
  "log-filename",
  "log-request-timestamps",
  ...Object.keys(llumnixArguments).filter((name) => name in engineTable),
];

/** The arguments of `manager`. */
export const managerGroups: readonly Group[] = [
  {
    title: "Llumnix arguments",
    section: "MANAGER",
    table: without(llumnixArguments, ["log-request-timestamps"]),
  },
  { title: "vLLM engine arguments", section: "ENGINE", table: vllmArguments },
  {
    title: programTitle,
    section: "MANAGER",
    table: {
      ...roleExtras,
      ...orphanExtras,
      ...lifecycleExtras,
      ...engineExtras,
      ...only(serverExtras, managerNames),
      ...processExtras,
    },
  },
];

/** The arguments of `api-server`. */
export const apiServerGroups: readonly Group[] = [
  {
    title: "Llumnix arguments",
    section: "MANAGER",
    table: only(llumnixArguments, apiServerNames),
  },
  { title: "Server arguments", section: "SERVER", table: serverArguments },
  { title: "vLLM engine arguments", section: "ENGINE", table: vllmArguments },
  {
    title: programTitle,
    section: "SERVER",
    table: {
      ...roleExtras,
      ...orphanExtras,
      ...only(lifecycleExtras, ["drain-timeout"]),
      ...engineExtras,
      ...without(serverExtras, ["instance-isolation", "priority-headroom-blocks"]),
      ...processExtras,
    },
  },
];

/** Everything that the configuration file of a role may say, so that all roles can share it. */
export const allRoleGroups: readonly Group[] = [
  ...serveGroups,
  { title: programTitle, section: "MANAGER", table: { ...roleExtras, ...orphanExtras } },
];

function only(table: ArgumentTable, names: readonly string[]): ArgumentTable {
  return Object.fromEntries(Object.entries(table).filter(([name]) => names.includes(name)));
}

function without(table: ArgumentTable, names: readonly string[]): ArgumentTable {
  return Object.fromEntries(Object.entries(table).filter(([name]) => !names.includes(name)));
}

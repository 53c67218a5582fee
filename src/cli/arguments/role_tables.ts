/** The arguments of roles that run apart: some arguments of `serve`, and arguments of their own. */
import type { ArgumentTable } from "./argument.ts";
import { llumnixArguments } from "./llumnix.ts";
import {
  engineExtras,
  hostExtras,
  lifecycleExtras,
  metricsExtras,
  orphanExtras,
  processExtras,
  roleExtras,
  serverArguments,
  serverExtras,
} from "./program.ts";
import { engineTable, type Group, instanceGroups, programTitle, serveGroups } from "./tables.ts";
import { vllmArguments } from "./vllm.ts";

/** Options of `serve` that the manager reads. */
const managerNames = [
  "priority-headroom-blocks",
  "admin-token",
  "shutdown-timeout",
  "print-config",
] as const;

/** Llumnix's arguments that the API server reads, or the instances that it starts. */
const apiServerNames = [
  "config-file",
  "disable-init-instance-by-manager",
  "initial-instances",
  "log-filename",
  "log-request-timestamps",
  ...Object.keys(llumnixArguments).filter((name) => name in engineTable),
];

/** Llumnix's arguments that an agent reads, or the instances that it starts. */
const agentNames = [
  "config-file",
  "log-filename",
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
      ...metricsExtras,
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

/** The arguments of `agent`. */
export const agentGroups: readonly Group[] = [
  { title: "Host arguments", section: "MANAGER", table: hostExtras },
  {
    title: "Llumnix arguments",
    section: "MANAGER",
    table: only(llumnixArguments, agentNames),
  },
  { title: "vLLM engine arguments", section: "ENGINE", table: vllmArguments },
  {
    title: programTitle,
    section: "MANAGER",
    table: {
      ...roleExtras,
      ...orphanExtras,
      ...only(lifecycleExtras, ["drain-timeout"]),
      ...engineExtras,
      ...only(serverExtras, ["print-config"]),
      ...processExtras,
    },
  },
];

/** The arguments that the configuration file of any role may set, so that all roles can share a file. */
export const allRoleGroups: readonly Group[] = [
  ...serveGroups,
  { title: programTitle, section: "MANAGER", table: metricsExtras },
];

/** The same and the arguments of an instance, which take the place of others with the same name. */
export const everyGroup: readonly Group[] = [...allRoleGroups, ...instanceGroups];

function only(table: ArgumentTable, names: readonly string[]): ArgumentTable {
  return Object.fromEntries(Object.entries(table).filter(([name]) => names.includes(name)));
}

function without(table: ArgumentTable, names: readonly string[]): ArgumentTable {
  return Object.fromEntries(Object.entries(table).filter(([name]) => !names.includes(name)));
}

/** The commands' argument tables and the types of their effective options. */
import type {
  EngineOptions,
  ManagerOptions,
  MigrationBackendOptions,
  MigrationOptions,
  ScalingOptions,
  ServerOptions,
  TransferOptions,
} from "../../core/options.ts";
import { type ArgumentTable, camelCase, type OptionsOf, type Section } from "./argument.ts";
import { compatibilityArguments } from "./compatibility.ts";
import { llumnixArguments } from "./llumnix.ts";
import {
  engineExtras,
  hostExtras,
  instanceArguments,
  lifecycleExtras,
  type metricsExtras,
  orphanExtras,
  processExtras,
  roleExtras,
  serverArguments,
  serverExtras,
} from "./program.ts";
import { vllmArguments } from "./vllm.ts";

/** Arguments under one heading. */
export interface Group {
  readonly title: string;
  readonly section: Section;
  readonly table: ArgumentTable;
}

export const programTitle = "Options of this program";
const compatibilityTitle = "Options of old command lines, without effect here";

/** The arguments of `serve`, as help shows them. */
export const serveGroups: readonly Group[] = [
  { title: "Llumnix arguments", section: "MANAGER", table: llumnixArguments },
  { title: "Server arguments", section: "SERVER", table: serverArguments },
  { title: "vLLM engine arguments", section: "ENGINE", table: vllmArguments },
  {
    title: programTitle,
    section: "SERVER",
    table: {
      ...engineExtras,
      ...lifecycleExtras,
      ...serverExtras,
      ...processExtras,
    },
  },
  {
    title: "Several hosts",
    section: "MANAGER",
    table: { ...roleExtras, ...hostExtras, ...orphanExtras },
  },
  { title: compatibilityTitle, section: "SERVER", table: compatibilityArguments },
];

/** Llumnix's arguments that an instance needs as well. */
const simulatorArguments = {
  "profiling-result-file-path": llumnixArguments["profiling-result-file-path"],
  "gpu-type": llumnixArguments["gpu-type"],
};

/** Llumnix's arguments that say how an instance moves requests. */
const transferArguments = {
  "enable-migration": llumnixArguments["enable-migration"],
  "migration-backend": llumnixArguments["migration-backend"],
  "migration-buffer-blocks": llumnixArguments["migration-buffer-blocks"],
  "migration-num-layers": llumnixArguments["migration-num-layers"],
  "migration-backend-init-timeout": llumnixArguments["migration-backend-init-timeout"],
  "migration-backend-transfer-type": llumnixArguments["migration-backend-transfer-type"],
  "migration-backend-kvtransfer-naming-url":
    llumnixArguments["migration-backend-kvtransfer-naming-url"],
  "migration-backend-server-address": llumnixArguments["migration-backend-server-address"],
  "last-stage-max-blocks": llumnixArguments["last-stage-max-blocks"],
  "max-stages": llumnixArguments["max-stages"],
};

/** The arguments of `instance`. */
export const instanceGroups: readonly Group[] = [
  { title: "Instance arguments", section: "ENGINE", table: instanceArguments },
  { title: "vLLM engine arguments", section: "ENGINE", table: vllmArguments },
  {
    title: programTitle,
    section: "ENGINE",
    table: { ...simulatorArguments, ...transferArguments, ...engineExtras, ...processExtras },
  },
];

/** Arguments that a serving process passes on to the instances that it starts. */
export const engineTable: ArgumentTable = {
  ...vllmArguments,
  ...simulatorArguments,
  ...transferArguments,
  ...engineExtras,
};

type EngineTable =
  & typeof vllmArguments
  & typeof simulatorArguments
  & typeof transferArguments
  & typeof engineExtras;

/** The default options of an engine. */
export function engineDefaults(): OptionsOf<EngineTable> {
  const defaults = Object.entries(engineTable)
    .map(([name, argument]) => [camelCase(name), argument.default]);
  return Object.fromEntries(defaults);
}

/** Effective options of `llumnix serve`. */
export type ServeOptions = OptionsOf<
  & typeof llumnixArguments
  & typeof serverArguments
  & EngineTable
  & typeof lifecycleExtras
  & typeof serverExtras
  & typeof processExtras
  & typeof roleExtras
  & typeof hostExtras
  & typeof orphanExtras
>;

/** Effective options of `llumnix instance`. */
export type InstanceOptions = OptionsOf<
  EngineTable & typeof instanceArguments & typeof processExtras
>;

/** Effective options of `llumnix manager` and `llumnix api-server`: the options of `serve` and more. */
export type RoleOptions = ServeOptions & OptionsOf<typeof metricsExtras>;

type Satisfies<Contract, Options extends Contract> = Options;

/** Fails to compile if the tables lack an option that the rest of the program reads. */
export type CheckedServingOptions = [
  Satisfies<EngineOptions & ManagerOptions & ServerOptions, ServeOptions>,
  Satisfies<MigrationOptions & TransferOptions & ScalingOptions, ServeOptions>,
  Satisfies<EngineOptions & TransferOptions & MigrationBackendOptions, InstanceOptions>,
];

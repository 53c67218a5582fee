/** Values that are fine alone and contradict each other. */
import { UsageError } from "../../core/errors.ts";
import {
  devices,
  findExecutorKind,
  fp8Problem,
  profileDevices,
  ranksProblem,
} from "../../executor/devices.ts";
import { backendProblem, memoryProblem, migrationBackends } from "../../kv/transfer/backends.ts";
import { crossoverProblem } from "../../instance/llumlet/crossover.ts";
import { disaggregationProblem } from "../../manager/fleet/disaggregation.ts";
import { scalingThresholdProblem, thresholdProblem } from "../../manager/load/thresholds.ts";
import { adminToken } from "../../roles/admin_token.ts";
import { type Settings, toOptions } from "../settings.ts";
import type { ServeOptions } from "./tables.ts";

/** A combination that cannot be served: the reason, or null. */
type Rule = (options: ServeOptions) => string | null;

const rules: readonly Rule[] = [
  migrationBackend,
  crossover,
  rootPath,
  blockMemory,
  thresholds,
  instanceLimits,
  disaggregation,
  sslPair,
  secrets,
  batchedTokens,
  fp8Problem,
  ranksProblem,
  profileOptions,
  isolation,
  severalHosts,
  instanceInfoFile,
];

/**
 * Refuses combinations that contradict each other, with Llumnix's or vLLM's reason where it has one.
 * @throws {UsageError} the first contradiction
 */
export function checkCombinations(settings: Settings): void {
  const options = toOptions<ServeOptions>(settings);
  for (const rule of rules) {
    const problem = rule(options);
    if (problem !== null) throw new UsageError(problem);
  }
}

function crossover({ migrationCrossover }: ServeOptions): string | null {
  return crossoverProblem(migrationCrossover);
}

/** Paths of requests begin with a slash, so that another prefix would never be one. */
function rootPath({ rootPath }: ServeOptions): string | null {
  if (rootPath === "" || rootPath.startsWith("/")) return null;
  return `--root-path ${rootPath}: expected a path that begins with a slash, such as /${rootPath}`;
}

function migrationBackend(options: ServeOptions): string | null {
  return backendProblem(options.migrationBackend, options);
}

/** Asks the backends that are available; `checkStatus` refuses the others. */
function blockMemory({ enableMigration, migrationBackend: name, device }: ServeOptions) {
  const backend = migrationBackends.find((kind) => kind.name === name);
  const found = findExecutorKind(device);
  if (!enableMigration || !backend || !found) return null;
  return memoryProblem(backend, found.memory, `--device ${device}`);
}

function thresholds(options: ServeOptions): string | null {
  const written = {
    "--migrate-out-threshold": options.migrateOutThreshold,
    "--scale-up-threshold": options.scaleUpThreshold,
    "--scale-down-threshold": options.scaleDownThreshold,
  };
  for (const [name, value] of Object.entries(written)) {
    const problem = thresholdProblem(options.loadMetric, value);
    if (problem !== null) return `${name} ${value}: ${problem}`;
  }
  return options.enableScaling ? scalingThresholdProblem(options.loadMetric, options) : null;
}

function instanceLimits(options: ServeOptions): string | null {
  const { minInstances, maxInstances, initialInstances, enableScaling } = options;
  if (minInstances > maxInstances) {
    return `--min-instances ${minInstances} is more than --max-instances ${maxInstances}`;
  }
  const isOutside = initialInstances < minInstances || initialInstances > maxInstances;
  if (!enableScaling || !isOutside) return null;
  return `--initial-instances ${initialInstances} is outside --min-instances ${minInstances} to ` +
    `--max-instances ${maxInstances}, between which --enable-scaling keeps the service`;
}

function disaggregation(options: ServeOptions): string | null {
  const { enablePdDisagg, numDispatchInstances, initialInstances, cluster } = options;
  if (!enablePdDisagg) return null;
  if (cluster && numDispatchInstances !== null) return null; // other hosts may have more instances
  return disaggregationProblem(numDispatchInstances, initialInstances, "--initial-instances");
}

function sslPair({ sslKeyfile, sslCertfile }: ServeOptions): string | null {
  if ((sslKeyfile === null) === (sslCertfile === null)) return null;
  const [given, missing] = sslKeyfile === null
    ? ["--ssl-certfile", "--ssl-keyfile"]
    : ["--ssl-keyfile", "--ssl-certfile"];
  return `${given} needs ${missing}: HTTPS takes a key and its certificate`;
}

function secrets(options: ServeOptions): null {
  adminToken(options);
  return null;
}

/** vLLM 0.4.2, `SchedulerConfig._verify_args`. The model's own length is checked when it is known. */
function batchedTokens(options: ServeOptions): string | null {
  const { maxNumBatchedTokens, maxNumSeqs, maxModelLen } = options;
  if (maxNumBatchedTokens === null) return null;
  if (maxModelLen !== null && maxNumBatchedTokens < maxModelLen) {
    return `--max-num-batched-tokens ${maxNumBatchedTokens} is less than --max-model-len ` +
      `${maxModelLen}: longer prompts could never run. Increase the one or decrease the other.`;
  }
  if (maxNumBatchedTokens < maxNumSeqs) {
    return `--max-num-batched-tokens ${maxNumBatchedTokens} is less than --max-num-seqs ` +
      `${maxNumSeqs}: every sequence of a step takes a token at least. Increase the one or ` +
      "decrease the other.";
  }
  return null;
}

function profileOptions(options: ServeOptions): string | null {
  const { device, profilingResultFilePath, speedup } = options;
  if (runsOnProfile(device)) return null;
  if (profilingResultFilePath !== "") {
    return `--profiling-result-file-path ${profilingResultFilePath} is for ${profileDevices}, and ` +
      `--device is ${device}: leave one of them out`;
  }
  if (speedup === 1) return null;
  return `--speedup ${speedup} is for ${profileDevices}: add that, or leave it out`;
}

function isolation({ device, instanceIsolation }: ServeOptions): string | null {
  const sharing = devices.filter((kind) => kind.sharesProcess !== "never");
  if (instanceIsolation !== "none" || sharing.some((kind) => kind.device === device)) return null;
  const names = sharing.map((kind) => kind.device).join(" and ");
  return `--instance-isolation none is for --device ${names}, and --device is ${device}: a ` +
    "step of a model would hold up the whole service";
}

function severalHosts({ cluster, instanceIsolation }: ServeOptions): string | null {
  if (!cluster || instanceIsolation !== "none") return null;
  return "--instance-isolation none keeps instances in this process, where other hosts do not reach " +
    "them: leave it out with --cluster";
}

function runsOnProfile(device: ServeOptions["device"]): boolean {
  return devices.some((kind) => kind.usesProfile && kind.device === device);
}

function instanceInfoFile({ logInstanceInfo, logFilename }: ServeOptions): string | null {
  if (!logInstanceInfo || logFilename !== "") return null;
  return "--log-instance-info writes to LOG_FILENAME_instance.csv, and --log-filename is empty";
}

/** Values that are fine alone and contradict each other. */
import { UsageError } from "../../core/errors.ts";
import { disaggregationProblem } from "../../manager/fleet/disaggregation.ts";
import { scalingThresholdProblem, thresholdProblem } from "../../manager/load/thresholds.ts";
import { adminToken } from "../../roles/admin_token.ts";
import { type Settings, toOptions } from "../settings.ts";
import type { ServeOptions } from "./tables.ts";

/** A combination that cannot be served: the reason, or null. */
type Rule = (options: ServeOptions) => string | null;

const rules: readonly Rule[] = [
  glooPlacement,
  emptyTransferType,
  thresholds,
  instanceLimits,
  disaggregation,
  sslPair,
  secrets,
  batchedTokens,
  simulatorOptions,
  isolation,
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

function glooPlacement(options: ServeOptions): string | null {
  if (options.migrationBackend !== "gloo") return null;
  if (!options.disableInitInstanceByManager && !options.disableFixedNodeInitInstance) return null;
  return "When using gloo as migration backend, do not set --disable-init-instance-by-manager " +
    "and --disable-fixed-node-init-instance; with --migration-backend rayrpc both can be set.";
}

function emptyTransferType(options: ServeOptions): string | null {
  if (options.migrationBackend !== "kvtransfer" || options.migrationBackendTransferType !== "") {
    return null;
  }
  return "When using kvTransfer as migration backend, do not set " +
    "--migration-backend-transfer-type as empty; choose cuda_ipc or rdma.";
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
  const { enablePdDisagg, numDispatchInstances, initialInstances } = options;
  if (!enablePdDisagg) return null;
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

function simulatorOptions(options: ServeOptions): string | null {
  const { device, profilingResultFilePath, speedup } = options;
  if (device === "sim") return null;
  if (profilingResultFilePath !== "") {
    return `--profiling-result-file-path ${profilingResultFilePath} is for --device sim, and ` +
      `--device is ${device}: leave one of them out`;
  }
  if (speedup !== 1) return `--speedup ${speedup} is for --device sim: add that, or leave it out`;
  return null;
}

function isolation({ device, instanceIsolation }: ServeOptions): string | null {
  if (instanceIsolation !== "none" || device === "sim" || device === "null") return null;
  return `--instance-isolation none is for --device sim and null, and --device is ${device}: a ` +
    "step of a model would hold up the whole service";
}

function instanceInfoFile({ logInstanceInfo, logFilename }: ServeOptions): string | null {
  if (!logInstanceInfo || logFilename !== "") return null;
  return "--log-instance-info writes to LOG_FILENAME_instance.csv, and --log-filename is empty";
}

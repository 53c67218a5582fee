/** Which arguments have no effect beside the other settings, and which policy is in force instead. */
import type {
  EngineOptions,
  ManagerOptions,
  MigrationBackendOptions,
  MigrationOptions,
  ScalingOptions,
} from "../../core/options.ts";
import { findExecutorKind, profileDevices } from "../../executor/devices.ts";
import { pairPolicyInForce } from "../../manager/migration/pair_migration.ts";
import type { BackendName } from "../../kv/transfer/backend_kind.ts";
import { camelCase } from "./argument.ts";
import type { Notice } from "./status.ts";

/** The options that decide whether others have an effect. Some commands have only some of them. */
export type DecidingOptions = Partial<
  & ScalingOptions
  & ManagerOptions
  & MigrationOptions
  & EngineOptions
  & MigrationBackendOptions
  & { readonly cluster: string | null }
>;

/** Ends the sentence "--name has no effect", or null if the argument has one. */
type Reason = (options: DecidingOptions) => string | null;

const needsScaling: Reason = (options) =>
  options.enableScaling ? null : " without --enable-scaling";
const needsMigration: Reason = (options) =>
  options.enableMigration ? null : " without --enable-migration";
const needsCluster: Reason = ({ cluster }) => cluster ? null : " without --cluster";
const needsHeadroom: Reason = (options) =>
  options.loadMetric === "virtual_usage" ? null : " without --load-metric virtual_usage";
const needsProfile: Reason = ({ device }) =>
  findKind(device)?.usesProfile ? null : ` without ${profileDevices}`;
const needsBackend = (name: BackendName): Reason => (options) =>
  needsMigration(options) ??
    (options.migrationBackend === name ? null : ` without --migration-backend ${name}`);
const needsGraphs: Reason = ({ device }) => {
  const found = findKind(device);
  if (found === undefined || found.memory === "device") return null;
  return `: CUDA graphs are for GPUs, and the device is ${found.device}`;
};
const needsGpu: Reason = ({ device }) => {
  const found = findKind(device);
  return found === undefined || found.memory === "device"
    ? null
    : `: it is for GPUs, and the device is ${found.device}`;
};
const never = (reason: string): Reason => () => `: ${reason}`;

function findKind(device: DecidingOptions["device"] = "auto") {
  return findExecutorKind(device);
}

const reasons: Readonly<Record<string, Reason>> = {
  "min-instances": needsScaling,
  "max-instances": needsScaling,
  "pair-migration-policy": needsMigration,
  "request-migration-policy": needsMigration,
  "priority-headroom-blocks": needsHeadroom,
  "gpu-type": needsProfile,
  "cluster-credentials": needsCluster,
  "cluster-lease": needsCluster,
  "migration-backend": needsMigration,
  "migration-backend-transfer-type": needsBackend("kvtransfer"),
  "migration-backend-kvtransfer-naming-url": needsBackend("kvtransfer"),
  "migration-backend-server-address": needsBackend("grpc"),
  "enforce-eager": needsGraphs,
  "max-seq-len-to-capture": needsGraphs,
  "cuda-plain-paths": needsGpu,
  "cuda-prompt-gemm": needsGpu,
  "cuda-self-test": needsGpu,
  "code-revision": never("code that comes with a model is never run"),
};

/** Ends the sentence "--name has no effect", such as " without --enable-scaling"; null if it has one. */
export function idleReason(name: string, options: DecidingOptions): string | null {
  return Object.hasOwn(reasons, name) ? reasons[name](options) : null;
}

/** Arguments that have an effect on `serve` only if there are other hosts. */
const ofSeveralHosts = [
  "manager-address",
  "cluster-key-file",
  "cluster-insecure",
  "orphan-timeout",
  "host-name",
  "host-slots",
  "advertise-host",
];

/**
 * What was set for `serve` and has no effect on a service of one host.
 * @param isChosen whether somebody set the argument of this name
 */
export function oneHostNotices(
  { cluster }: DecidingOptions,
  isChosen: (name: string) => boolean,
): Notice[] {
  if (cluster) return [];
  return ofSeveralHosts.filter(isChosen).map((name) => ({
    severity: "warning",
    message: `--${name} has no effect without --cluster, in a service of one host`,
  }));
}

/** Says that the pair policy in force is not the one that was written; empty if it is. */
export function pairPolicyNotices(
  options: Pick<MigrationOptions, "enableMigration" | "enableDefrag" | "pairMigrationPolicy">,
): Notice[] {
  const { pairMigrationPolicy: written } = options;
  const inForce = pairPolicyInForce(options);
  if (!options.enableMigration || written === inForce) return [];
  const message = `--pair-migration-policy ${written} needs --enable-defrag; the policy in force ` +
    `is ${inForce}`;
  return [{ severity: "info", message }];
}

/**
 * What is written of a simulated cluster's policies and has no effect, or another one.
 * @param isChosen whether somebody set the argument of this name
 */
export function policyNotices(
  options: DecidingOptions & Parameters<typeof pairPolicyNotices>[0],
  isChosen: (name: string) => boolean,
): Notice[] {
  const values = new Map<string, unknown>(Object.entries(options));
  const idle = Object.keys(reasons).flatMap((name): Notice[] => {
    const reason = isChosen(name) ? idleReason(name, options) : null;
    if (reason === null) return [];
    const message = `--${name} ${values.get(camelCase(name))} has no effect${reason}`;
    return [{ severity: "warning", message }];
  });
  const isPairChosen = isChosen("pair-migration-policy") || isChosen("enable-defrag");
  return isPairChosen ? [...idle, ...pairPolicyNotices(options)] : idle;
}

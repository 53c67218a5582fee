/** Llumnix's own arguments, in the order and with the words of its argument page. */
import type { BackendName } from "../../kv/transfer/backend_kind.ts";
import { plannedBackends } from "../../kv/transfer/backends.ts";
import {
  type ArgumentTable,
  boolean,
  choice,
  flag,
  integer,
  later,
  number,
  type Status,
  text,
} from "./argument.ts";

/** Of an argument that is for one backend: it works as soon as the backend does. */
function ofBackend(name: BackendName): Status {
  return plannedBackends.some((planned) => planned.name === name) ? later : { kind: "works" };
}

export const llumnixArguments = {
  "config-file": text({
    default: null,
    section: null,
    help: "Path to config file.",
  }),
  "disable-fixed-node-init-instance": flag({
    help:
      "Disable fixing the placement of instance to current node: instances may be on any node " +
      "with a free device. A service is on one host for now, so that it is this node all the same.",
  }),
  "disable-init-instance-by-manager": flag({
    help: "Disable initializing instance by manager: the API server's process starts the " +
      "instances. Once they serve they are the manager's, which replaces what is lost.",
  }),
  "initial-instances": integer({
    default: 1,
    min: 1,
    help: "Number of instances created at initialization.",
  }),
  "load-metric": choice({
    choices: ["remaining_steps", "usage_ratio"],
    extraChoices: {
      virtual_usage: "the paper's freeness, which counts headroom for high priority",
    },
    default: "remaining_steps",
    help: "Instance load metric.",
  }),
  "polling-interval": number({
    default: 0.05,
    above: 0,
    max: 86400,
    help: "Time interval(s) to update instance info and pair migration.",
  }),
  "dispatch-policy": choice({
    choices: ["balanced", "load", "queue", "rr"],
    default: "load",
    help:
      "Request dispatch policy: the fewest requests dispatched so far, the smallest load, the " +
      "fewest waiting requests, round robin.",
  }),
  "enable-migration": flag({
    help: "Enable migrate requests between instances.",
  }),
  "pair-migration-frequency": integer({
    default: 1,
    min: 1,
    help: "Pair migration frequency: every so many updates of instance info.",
  }),
  "pair-migration-policy": choice({
    choices: ["balanced", "defrag_constrained", "defrag_relaxed"],
    extraChoices: {
      waiting_first:
        "as defrag_constrained, after instances short of blocks have given, and what waits has " +
        "gone where it fits, or has been made room for; with FIT",
    },
    default: "defrag_constrained",
    help: "Pair migration policy. Without --enable-defrag it is `balanced`, whatever is set here.",
  }),
  "migrate-out-threshold": number({
    default: 3,
    help: "Migrate out instance load threshold. With --load-metric usage_ratio a fraction in " +
      "(0, 1], 0.85 when left unset.",
  }),
  "request-migration-policy": choice({
    choices: ["LCR", "SR", "LR", "FCW", "FCWSR"],
    extraChoices: {
      FIT: "what the destination has room for: what waiting_first paired for; without it the " +
        "shortest running request where blocks are short, else the first waiting one that fits " +
        "there, else the running one that makes room for the head of the queue, else the shortest",
    },
    default: "SR",
    help: "Request migration policy: last come running, shortest running, longest running, first " +
      "come waiting, first come waiting then shortest running.",
  }),
  "enable-defrag": boolean({
    default: false,
    help: "Enable defragmentation through migration based on virtual usage: true, false, 1 or 0.",
  }),
  "enable-scaling": flag({
    help: "Enable auto scaling.",
  }),
  "min-instances": integer({
    default: 1,
    min: 1,
    help: "Minimum number of instances.",
  }),
  "max-instances": integer({
    default: 1,
    min: 1,
    help: "Maximum number of instances.",
  }),
  "scaling-interval": number({
    default: 10,
    above: 0,
    help: "Interval time of check scaling, in seconds.",
  }),
  "scaling-policy": choice({
    choices: ["max_load", "avg_load"],
    default: "avg_load",
    help: "Scaling policy.",
  }),
  "scale-up-threshold": number({
    default: 10,
    help: "Scale up threshold. With --load-metric usage_ratio a fraction in (0, 1], 0.85 when " +
      "left unset.",
  }),
  "scale-down-threshold": number({
    default: 60,
    help: "Scale down threshold. With --load-metric usage_ratio a fraction in (0, 1], 0.3 when " +
      "left unset.",
  }),
  "disable-log-requests-manager": flag({
    help: "Disable logging requests in manager.",
  }),
  "log-instance-info": flag({
    help: "Enable logging instance info, to LOG_FILENAME_instance.csv: a row per instance and " +
      "polling interval while it is busy, and one when it has become empty.",
  }),
  "log-filename": text({
    default: "server.log",
    help: "Log filename.",
  }),
  "profiling-result-file-path": text({
    default: "",
    help:
      "Profiling result file path: run instances on that profile instead of a device (implies " +
      "--device sim). The profile is looked up by the base name of --model. llumnix simulate --help " +
      "shows such a file.",
  }),
  "gpu-type": text({
    default: "a10",
    help:
      "GPU type specified when using simulator: the built-in profile a10, a100, h100 or h200. " +
      "Without effect where a profile is given.",
  }),
  "migration-backend": choice({
    choices: ["gloo", "nccl", "rayrpc", "grpc", "kvtransfer"],
    default: "gloo",
    laterChoices: plannedBackends.map(({ name }) => name),
    help: "Communication backend of migration. There is one engine here and every backend is for " +
      "it: the reference's split between vllm and bladellm has no counterpart.",
  }),
  "migration-buffer-blocks": integer({
    default: 512,
    min: 1,
    help: "Number of buffer blocks in migration.",
  }),
  "migration-backend-transfer-type": choice({
    choices: ["cuda_ipc", "rdma", ""],
    default: "rdma",
    status: ofBackend("kvtransfer"),
    help: "Transfer type for migration backend kvTransfer. Empty only with the other backends.",
  }),
  "migration-backend-kvtransfer-naming-url": text({
    default: "file:/tmp/llumnix/naming/",
    status: ofBackend("kvtransfer"),
    help: "URL of naming server for kvtransfer migration backend.",
  }),
  "migration-backend-server-address": text({
    default: "127.0.0.1:50051",
    status: ofBackend("grpc"),
    help:
      "Address of grpc server for migration backend, as HOST:PORT. The protocol is Connect over " +
      "HTTP/1.1, which Connect clients of any language and curl speak; gRPC over HTTP/2 is refused. " +
      "Several instances of a host have one address: each takes the first free port from PORT on, of " +
      "64, and tells the others. Port 0 is any free one. With instances on several hosts give an " +
      "address that the other hosts reach, or 0.0.0.0.",
  }),
  "migration-backend-init-timeout": number({
    default: 10,
    above: 0,
    help: "Timeout(s) for initializing migration backend.",
  }),
  "migration-num-layers": integer({
    default: 1,
    min: 1,
    help: "Number of kv-cache layers to transfer in each round during migration.",
  }),
  "last-stage-max-blocks": integer({
    default: 4,
    min: 1,
    help: "If the number of remaining blocks < last_stage_max_blocks, do last stage migration.",
  }),
  "max-stages": integer({
    default: 3,
    min: 1,
    help: "Drop migration if the number of stages > max_stages.",
  }),
  "enable-pd-disagg": flag({
    help: "Enable prefill decoding disaggregation: the first --num-dispatch-instances instances " +
      "compute prompts, and each request goes on at one of the others after its first token. " +
      "Implies --enable-migration. Without decode instances requests decode where they are; " +
      "without prefill instances the others take prompts. Scaling adds and removes decode " +
      "instances, and leaves one at least.",
  }),
  "num-dispatch-instances": integer({
    default: null,
    min: 1,
    defaultText: "no limit",
    help: "Number of available instances for dispatch. With --enable-pd-disagg the number of " +
      "prefill instances.",
  }),
  "log-request-timestamps": flag({
    section: "SERVER",
    help: "Enable logging request timestamps: /generate_benchmark answers what of each token's " +
      "latency passed in the engine step, in the instance, between processes and in the API server.",
  }),
} satisfies ArgumentTable;

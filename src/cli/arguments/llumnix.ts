/** Llumnix's own arguments, in the order and with the words of its argument page. */
import { DEFAULT_BUFFER_BLOCKS } from "../../kv/transfer/limits.ts";
import { DEFAULT_LOG_FILENAME } from "../../roles/start_logging.ts";
import { type ArgumentTable, boolean, choice, flag, integer, number, text } from "./argument.ts";

export const llumnixArguments = {
  "config-file": text({
    default: null,
    section: null,
    help: "Path to config file.",
  }),
  "disable-fixed-node-init-instance": flag({
    help:
      "Disable fixing the placement of instance to current node: the manager starts instances on " +
      "any host whose agent (`llumnix agent`) has a free slot, and not on its own host. Refused with " +
      "--migration-backend gloo, the default. `serve --cluster` does so in any case.",
  }),
  "disable-init-instance-by-manager": flag({
    help: "Disable initializing instance by manager: the API server's process starts the " +
      "instances. Once an instance serves, the manager owns it and replaces it if it is lost.",
  }),
  "initial-instances": integer({
    default: 1,
    min: 1,
    help: "Number of instances created at initialization.",
  }),
  "load-metric": choice({
    choices: ["remaining_steps", "usage_ratio"],
    extraChoices: {
      virtual_usage: "the paper's freeness, with headroom for requests of high priority",
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
    help: "Pair migration frequency: the manager pairs instances at every Nth update of instance " +
      "info.",
  }),
  "pair-migration-policy": choice({
    choices: ["balanced", "defrag_constrained", "defrag_relaxed"],
    extraChoices: {
      waiting_first:
        "like defrag_constrained, but first relieves instances that are short of blocks, then moves " +
        "waiting requests to where they fit, or makes room for them; use with FIT",
    },
    default: "defrag_constrained",
    help: "Pair migration policy. Without --enable-defrag the policy is always `balanced`.",
  }),
  "migrate-out-threshold": number({
    default: 3,
    help:
      "Migrate out instance load threshold. With --load-metric usage_ratio a fraction greater " +
      "than 0 and at most 1, by default 0.85.",
  }),
  "request-migration-policy": choice({
    choices: ["LCR", "SR", "LR", "FCW", "FCWSR"],
    extraChoices: {
      FIT:
        "the request for which waiting_first chose the pair; with other pair policies: the shortest " +
        "running request if the source is short of blocks, else the first waiting request that fits " +
        "the destination, else the running request that makes room for the head of the queue, else " +
        "the shortest running request",
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
    help: "Scale up threshold. With --load-metric usage_ratio a fraction greater than 0 and at " +
      "most 1, by default 0.85.",
  }),
  "scale-down-threshold": number({
    default: 60,
    help: "Scale down threshold. With --load-metric usage_ratio a fraction greater than 0 and at " +
      "most 1, by default 0.3.",
  }),
  "disable-log-requests-manager": flag({
    help: "Disable logging requests in manager.",
  }),
  "log-instance-info": flag({
    help: "Enable logging instance info to LOG_FILENAME_instance.csv: one row per busy instance " +
      "and polling interval, and one row when the instance becomes empty. Where instance_load is " +
      "infinite its cell is empty, and instance_load_kind says so. --log-max-bytes and " +
      "--log-backups hold for this file too.",
  }),
  "log-filename": text({
    default: DEFAULT_LOG_FILENAME,
    help:
      "Log filename. Only its user can read the file. If another server already logs to it, a " +
      "number is added to the name. Empty: log to stderr only, as by default in a unit of systemd, " +
      "whose journal has the log.",
  }),
  "profiling-result-file-path": text({
    default: "",
    help: "Profiling result file path: simulate instances with the latencies of this profile " +
      "instead of running a model (implies --device sim). The base name of --model selects " +
      "the profile in the file. llumnix simulate --help shows such a file.",
  }),
  "gpu-type": text({
    default: "a10",
    help:
      "GPU type specified when using simulator: the built-in profile a10, a100, h100 or h200. " +
      "No effect if --profiling-result-file-path is given.",
  }),
  "migration-backend": choice({
    choices: ["gloo", "nccl", "rayrpc", "grpc", "kvtransfer"],
    default: "gloo",
    help: "Communication backend of migration. Every backend works with every model here: " +
      "Llumnix's split between vLLM and BladeLLM does not exist. Between hosts gloo, rayrpc and " +
      "grpc encrypt, and take blocks from processes with the same cluster key only; nccl, and " +
      "kvtransfer between hosts, need --migration-insecure. nccl needs a CUDA device for each " +
      "instance.",
  }),
  "migration-buffer-blocks": integer({
    default: DEFAULT_BUFFER_BLOCKS,
    min: 1,
    help: "Number of buffer blocks in migration.",
  }),
  "migration-backend-transfer-type": choice({
    choices: ["cuda_ipc", "rdma", ""],
    default: "rdma",
    help:
      "Transfer type for migration backend kvTransfer. rdma: KV blocks in host memory. cuda_ipc: " +
      "KV blocks of CUDA devices of one host. For rdma, instances of one host need no library: the " +
      "destination reads the source's memory (process_vm_readv). Instances of different hosts need " +
      "UCX (Debian's libucx0, or the wheel libucx-cu13) and a naming directory that the hosts share. " +
      "Whole blocks are copied, whatever --migration-num-layers says. Other backends ignore it.",
  }),
  "migration-backend-kvtransfer-naming-url": text({
    default: "file:/tmp/llumnix/naming/",
    help:
      "URL of naming server for kvtransfer migration backend: `file:` and a directory, in which " +
      "instances find each other's KV blocks. Give all instances the same directory. It is created " +
      "if it is missing, and must belong to this user alone (mode 0700). Other backends ignore it.",
  }),
  "migration-backend-server-address": text({
    default: "127.0.0.1:50051",
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
      "compute prompts, and each request moves to another instance after its first token. " +
      "Implies --enable-migration. If no decode instance serves, requests decode where they " +
      "are; if no prefill instance serves, decode instances take prompts. Scaling adds and " +
      "removes decode instances, and keeps at least one.",
  }),
  "num-dispatch-instances": integer({
    default: null,
    min: 1,
    acceptsInfinity: true,
    defaultText: "no limit",
    help: "Number of available instances for dispatch. With --enable-pd-disagg, the number of " +
      "prefill instances. `.inf`: no limit.",
  }),
  "log-request-timestamps": flag({
    section: "SERVER",
    help: "Enable logging request timestamps: /generate_benchmark reports how much of each " +
      "token's latency was spent in the engine step, in the instance, between processes and " +
      "in the API server.",
  }),
} satisfies ArgumentTable;

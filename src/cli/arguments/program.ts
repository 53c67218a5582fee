/** Arguments of the API server, of this program alone, and of the internal `instance` command. */
import { MAX_HOST_SLOTS } from "../../core/protocol/agents.ts";
import { ADMIN_TOKEN_VARIABLE } from "../../roles/admin_token.ts";
import { type ArgumentTable, choice, flag, integer, list, number, size, text } from "./argument.ts";
import { httpArguments } from "./http.ts";

export const serverArguments = {
  "host": text({ default: "localhost", help: "Host name or address to listen on." }),
  "port": integer({
    default: 8000,
    min: 0,
    max: 65535,
    help: "Port to listen on; 0 takes a free one.",
  }),
  "ssl-keyfile": text({ default: null, help: "PEM file with the key for HTTPS." }),
  "ssl-certfile": text({ default: null, help: "PEM file with the certificate for HTTPS." }),
  "disable-log-requests-server": flag({ help: "Disable logging requests in server." }),
  ...httpArguments,
} satisfies ArgumentTable;

/** Options of this program that concern an instance. */
export const engineExtras = {
  "preemption-mode": choice({
    choices: ["recompute", "swap"],
    default: null,
    defaultText: "recompute",
    section: "ENGINE",
    help: "How a sequence gives up its blocks when memory is short: its KV cache is computed " +
      "again later, or swapped to host memory.",
  }),
  "cpu-threads": integer({
    default: null,
    min: 1,
    max: 512,
    defaultText: "the cores divided among the instances",
    section: "ENGINE",
    help: "Threads of the CPU executor of one instance. On Linux they run at nice +5: on a " +
      "contended core they get about a third of another thread's share.",
  }),
  "allow-shared-device": flag({
    section: "ENGINE",
    help: "Let instances share a CUDA device and divide its memory, if there are more instances " +
      "than devices. Otherwise such a start is refused.",
  }),
  "cuda-plain-paths": list({
    default: null,
    section: "ENGINE",
    help:
      "Fast paths of --device cuda to do without, on a host where one fails: graphs (CUDA graphs; " +
      "the same as --enforce-eager), programmatic (the next kernel starts before the last one has ended), fused " +
      "(one kernel for several), tensor-cores (without them long prompts are slow), sampling (the device " +
      "chooses tokens), ahead (a step begins before the tokens of the one before are known), or all. By " +
      "default none, except for those that the self-test finds broken.",
  }),
  "cuda-prompt-gemm": choice({
    choices: ["own", "cublaslt"],
    default: "own",
    section: "ENGINE",
    help:
      "What multiplies matrices for prompts of 512 tokens or more on --device cuda: the program's own " +
      "kernels, or NVIDIA's cuBLASLt, which may be faster. It is not the default because the order of its " +
      "sums differs between versions and devices: requests move only between instances where both are the " +
      "same. If the library is missing or fails its test at start, the own kernels compute, and the log says so.",
  }),
  "cuda-self-test": choice({
    choices: ["auto", "always", "off"],
    default: "auto",
    section: "ENGINE",
    help:
      "When --device cuda tests its kernels against those of the CPU before it serves: once for each kind of " +
      "device, driver and program (auto), at every start (always), or never (off). " +
      "A fast path that gives wrong results is left out; if a plain one does, the start is refused.",
  }),
  "cpu-kernels": choice({
    choices: ["amx", "avx512bf16", "avx512", "avx2", "neon", "wasm"],
    default: null,
    defaultText: "the fastest that the processor has",
    section: "ENGINE",
    help: "Kernel set of the CPU executor. Change it only to compare kernels.",
  }),
  "migration-insecure": flag({
    section: "ENGINE",
    help:
      "Let --migration-backend nccl, and kvtransfer between hosts, connect although the service has " +
      "a cluster key, which they cannot use: anyone who reaches the hosts can read and change the KV " +
      "cache. For networks that nobody else is on.",
  }),
  "speedup": number({
    default: 1,
    above: 0,
    section: "ENGINE",
    help: "With --device sim: how many times faster than its profile an instance runs.",
  }),
  "prefill-hold-timeout": number({
    default: 2,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "ENGINE",
    help:
      "With --enable-pd-disagg: longest time that a request waits on a prefill instance after " +
      "its first token, because other requests move first or no decode instance or manager is " +
      "there. After that time it decodes on the prefill instance, and can still move.",
  }),
  "step-timeout": number({
    default: 60,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "ENGINE",
    help: "An instance whose step takes longer is considered hung, even if its process answers: " +
      "it is replaced, and its requests continue on other instances. The CPU executor adds " +
      "time for each token of the step, by the model's size and the number of cores: 4 s for " +
      "7B on one core. A hang is noticed up to a quarter of the timeout late. 0: no limit.",
  }),
  "migration-crossover": text({
    default: "0",
    metavar: "auto|TOKENS",
    section: "ENGINE",
    help:
      "A running request with fewer tokens than this leaves its KV cache behind when it moves: " +
      "the destination computes it again, as for a request that waits there. `auto`: where that is " +
      "faster, by the measured speed of the path to the destination, the measured speed of prompts " +
      "and the request's length; the log tells what was measured, and warns of a path that is " +
      "slower than recomputing. Default: every request moves with its KV cache.",
  }),
} satisfies ArgumentTable;

/** Options of this program on how instances come and go. */
export const lifecycleExtras = {
  "instance-timeout": number({
    default: 10,
    above: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "MANAGER",
    help: "An instance that sends nothing for this long is considered hung: it is killed and " +
      "replaced, and its requests continue on other instances. The end of a process is " +
      "noticed at once.",
  }),
  "drain-timeout": number({
    default: 30,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "MANAGER",
    help:
      "Time that the requests of an instance have to move away or finish when the instance is " +
      "scaled down, removed, or gets SIGTERM. After that time they continue on other " +
      "instances from the tokens that they have.",
  }),
} satisfies ArgumentTable;

/** Options of this program for roles that run apart. */
export const roleExtras = {
  "cluster": text({
    default: null,
    metavar: "URL",
    section: "MANAGER",
    help: "Lease store in which the processes of several hosts find each other: " +
      "etcd://HOST[:PORT],.../NAME, nats://HOST[:PORT],.../NAME, or file:/DIRECTORY for one host. " +
      "Managers stand for election there: one leads, the others take over when it is gone. Each " +
      "manager needs a --manager-address of its own; instances, agents and API servers need none. " +
      "With `serve`, the same command on each host makes one service. A JetStream cluster takes 4 to " +
      "9 s to elect its own leader.",
  }),
  "cluster-credentials": text({
    default: null,
    defaultText: "$LLUMNIX_CLUSTER_USER, _PASSWORD, _TOKEN, _NKEY_SEED and _CA_FILE",
    metavar: "FILE",
    section: "MANAGER",
    help:
      "How to enter the store of --cluster: a file of lines NAME=VALUE with the names USER and " +
      "PASSWORD (etcd, NATS), TOKEN and NKEY_SEED (NATS), and CA_FILE, the path of the certificates that " +
      "sign the servers' (PEM), which turns TLS on. Only its owner may be able to read the file (mode 600).",
  }),
  "cluster-lease": number({
    default: 1,
    min: 0.5,
    max: 60,
    metavar: "SECONDS",
    section: "MANAGER",
    help:
      "How long a leading manager may be silent in the store of --cluster before another one takes " +
      "over. Give all processes the same. Raise it where the store is slow. If the process " +
      "of the leading manager has ended, another one takes over at once.",
  }),
  "manager-address": text({
    default: null,
    defaultText: "unix:$XDG_RUNTIME_DIR/llumnix/manager.sock, or the same in $TMPDIR/llumnix-UID",
    metavar: "ADDRESS",
    section: "MANAGER",
    help:
      "Where manager, API servers and instances connect: unix:PATH or tcp:HOST:PORT. With the " +
      "default, the processes of one user find each other. A Unix socket is open to its user " +
      "only. TCP needs --cluster-key-file.",
  }),
  "cluster-key-file": text({
    default: null,
    defaultText: "$LLUMNIX_CLUSTER_KEY",
    metavar: "FILE",
    section: "MANAGER",
    help:
      "Key that manager, API servers and instances have in common when they connect over TCP: " +
      "connections are encrypted, and both ends prove that they have it. `llumnix keygen FILE` makes " +
      "one. Only its owner may be able to read the file (mode 600).",
  }),
  "cluster-insecure": flag({
    section: "MANAGER",
    help:
      "Connect over TCP without a key: anyone who reaches a port can use and stop the service, " +
      "read prompts and change answers. For networks that nobody else is on.",
  }),
} satisfies ArgumentTable;

/** Options of this program for an agent, which starts the instances of its host. */
export const hostExtras = {
  "host-name": text({
    default: null,
    defaultText: "the system's host name",
    metavar: "NAME",
    section: "MANAGER",
    help: "Name of this host in its cluster. No two hosts may have the same name.",
  }),
  "host-slots": integer({
    default: null,
    min: 1,
    max: MAX_HOST_SLOTS,
    defaultText: "its CUDA devices, else 1; serve: at least --initial-instances",
    metavar: "N",
    section: "MANAGER",
    help:
      "Instances that this host can run at once. Each gets this fraction of its memory and cores, " +
      "or one of its CUDA devices.",
  }),
  "advertise-host": text({
    default: null,
    defaultText: "the address that this host has on the way to the manager",
    metavar: "HOST",
    section: "MANAGER",
    help: "IP address at which API servers and other instances reach the instances of this host.",
  }),
} satisfies ArgumentTable;

/** Options of this program for roles without an HTTP server of their own. */
export const metricsExtras = {
  "metrics-port": integer({
    default: null,
    min: 0,
    max: 65535,
    section: null,
    defaultText: "none",
    help:
      "Port for GET /metrics of this process, for Prometheus; 0 takes a free one. An API server " +
      "has /metrics on its own port, with the metrics of all instances.",
  }),
  "metrics-host": text({
    default: "localhost",
    section: null,
    help: "Host name or address for --metrics-port.",
  }),
} satisfies ArgumentTable;

/** Options of this program for instances that may outlive their manager. */
export const orphanExtras = {
  "orphan-timeout": number({
    default: 300,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "MANAGER",
    help: "Time that an instance continues to serve without a manager. A manager that starts in " +
      "that time takes over the instances and their requests. After that time the instances " +
      "exit.",
  }),
} satisfies ArgumentTable;

/** Options of this program that concern the service. */
export const serverExtras = {
  "instance-isolation": choice({
    choices: ["auto", "process", "none"],
    default: "auto",
    section: "SERVER",
    help: "Where instances run: each in a process of its own, or all in this process, which only " +
      "--device sim and null allow. `auto` is `none` for --device sim.",
  }),
  "max-queued-requests": integer({
    default: 1024,
    min: 1,
    section: "SERVER",
    help: "Maximum number of requests in the service at once; more are refused with HTTP 429.",
  }),
  "max-body-bytes": size({
    default: 4 * 1024 * 1024,
    min: 1,
    max: 1024 ** 3,
    metavar: "SIZE",
    defaultText: "4MiB",
    section: "SERVER",
    help: "Largest request body, in bytes or with a unit (4MiB, 500kB).",
  }),
  "resume-hold": number({
    default: 60,
    min: 0,
    max: 3600,
    metavar: "SECONDS",
    section: "SERVER",
    help:
      'Time that instances keep the tokens of a stream that asked for it ("resumable": true), ' +
      "counted from the end of the stream or of its connection. In that time its client can go on " +
      "with it at any API server, by the header Last-Event-ID. 0 refuses such requests.",
  }),
  "shutdown-timeout": number({
    default: 30,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "SERVER",
    help: "Time that running requests have to finish after SIGTERM.",
  }),
  "priority-headroom-blocks": integer({
    default: null,
    min: 0,
    defaultText: "88% of the instance's blocks",
    section: "MANAGER",
    help: "With --load-metric virtual_usage: extra blocks counted as used while a high-priority " +
      "request runs, so that other requests go elsewhere and it decodes faster. The default " +
      "leaves the share that the paper found good: 1600 of 13616 tokens.",
  }),
  "admin-token": text({
    default: null,
    metavar: "TOKEN",
    isSecret: true,
    environment: ADMIN_TOKEN_VARIABLE,
    section: "SERVER",
    help: "Opens the routes under /admin/ to requests with the header `Authorization: Bearer " +
      "TOKEN`. GET instances, GET hosts and GET requests list them, POST instances adds one, POST " +
      "instances/ID/drain and .../keep start and end draining, hosts/NAME/drain and .../keep do so " +
      "for all instances of a host, DELETE instances/ID drains and stops one, POST " +
      'requests/ID/migrate {"instance": ID} moves a request (with --enable-migration). Changes of ' +
      "instances and hosts are answered with 202 at once; the lists show their progress. Roles " +
      "that run apart need the same token. The environment variable LLUMNIX_ADMIN_TOKEN sets the token " +
      "without showing it in `ps`.",
  }),
  "otlp-traces-endpoint": text({
    default: null,
    metavar: "URL",
    section: "SERVER",
    help: "Send a trace of each request to this OpenTelemetry collector, over OTLP/HTTP, such as " +
      "http://localhost:4318/v1/traces: its time in the queue, in prefill and decode, and its " +
      "migrations, but neither prompt nor output. A request with a `traceparent` header joins " +
      "its client's trace. The environment variable OTEL_EXPORTER_OTLP_HEADERS adds headers. " +
      "Default: no traces.",
  }),
  "log-prompts": flag({
    section: "SERVER",
    help: "Log the text or token ids of prompts, up to --max-log-len. Without it, only their " +
      "lengths are logged. --disable-log-requests switches both off.",
  }),
  "print-config": flag({
    section: null,
    help:
      "Print each argument's value in force and where it comes from, and exit. Arguments that " +
      "would not start are refused; files, ports and devices are not looked at.",
  }),
} satisfies ArgumentTable;

/** Options of this program that every process takes. */
export const processExtras = {
  "log-level": choice({
    choices: ["debug", "info", "warning", "error"],
    default: "info",
    section: "SERVER",
    help: "Least severe messages that are logged.",
  }),
  "log-format": choice({
    choices: ["text", "json"],
    default: "text",
    section: "SERVER",
    help:
      "How log records are written, to stderr and to the file: as lines of text, or each as a " +
      "JSON object on a line, for programs that collect logs.",
  }),
  "log-max-bytes": size({
    default: 100 * 1024 * 1024,
    min: 0,
    metavar: "SIZE",
    defaultText: "100MiB",
    section: "SERVER",
    help:
      "Size at which the log file is renamed to FILE.1, FILE.1 to FILE.2 and so on, and a new " +
      "file begins. 0: never. For logrotate: a process without a terminal reopens its log " +
      "file on SIGHUP.",
  }),
  "log-backups": integer({
    default: 3,
    min: 1,
    max: 1000,
    section: "SERVER",
    help: "Renamed log files that are kept.",
  }),
} satisfies ArgumentTable;

export const instanceArguments = {
  "config-file": text({
    default: null,
    section: null,
    help: "Path to config file. It may be the file of the whole service: keys of other roles are " +
      "ignored.",
  }),
  "log-filename": text({
    default: null,
    section: null,
    help: "Log to this file in addition to stderr.",
  }),
  "instance-id": text({
    default: null,
    defaultText: "a unique one",
    section: null,
    help: "Name of this instance. No other running instance may have the same name.",
  }),
  "host": text({
    default: null,
    defaultText: "the address that this host has on the way to the manager",
    metavar: "HOST",
    section: null,
    help:
      "With --manager-address tcp:HOST:PORT: IP address of this host. The instance listens there, and " +
      "API servers and other instances are told to connect to it there.",
  }),
  "host-name": text({
    default: null,
    defaultText: "the address of --host over TCP, else the host's own name",
    metavar: "NAME",
    section: null,
    help:
      "Name of this host. Instances with one name are on one host: requests move between them " +
      "rather than to another host, and they can be drained together.",
  }),
  "host-share": integer({
    default: 1,
    min: 1,
    section: null,
    help: "Instances that share this host: each takes this fraction of its memory and cores. An " +
      "instance leaves alone the memory that others of this user have claimed, whatever this says.",
  }),
  "started-by": choice({
    choices: ["hand", "manager", "api-server"],
    default: "hand",
    section: null,
    help: "Who starts this process. An instance started by hand is stopped by hand (SIGTERM, " +
      "SIGINT) and is not replaced.",
  }),
  "drain-timeout": lifecycleExtras["drain-timeout"],
  ...metricsExtras,
  ...orphanExtras,
  ...roleExtras,
} satisfies ArgumentTable;

/** Arguments of the API server, of this program alone, and of the internal `instance` command. */
import { type ArgumentTable, choice, flag, integer, number, size, text } from "./argument.ts";

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
} satisfies ArgumentTable;

/** Options of this program that concern an instance. */
export const engineExtras = {
  "preemption-mode": choice({
    choices: ["recompute", "swap"],
    default: null,
    defaultText: "recompute",
    section: "ENGINE",
    help: "What becomes of a sequence that must give up its blocks: computed again, or swapped " +
      "to host memory.",
  }),
  "cpu-threads": integer({
    default: null,
    min: 1,
    max: 512,
    defaultText: "the cores divided among the instances",
    section: "ENGINE",
    help:
      "Threads of the CPU executor of one instance. On Linux they are nicer, by 5, than the rest: " +
      "where a core is wanted by others as well, they get a third of the others' share.",
  }),
  "cpu-kernels": choice({
    choices: ["amx", "avx512bf16", "avx512", "avx2", "neon", "wasm"],
    default: null,
    defaultText: "the fastest that the processor has",
    section: "ENGINE",
    help: "Kernel set of the CPU executor.",
  }),
  "speedup": number({
    default: 1,
    above: 0,
    section: "ENGINE",
    help: "With --device sim, how many times faster than its profile an instance runs.",
  }),
  "prefill-hold-timeout": number({
    default: 2,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "ENGINE",
    help:
      "With --enable-pd-disagg, how long a request waits on a prefill instance, after its first " +
      "token, until its move to a decode instance begins: behind other moves, or because there is " +
      "no destination or manager. Then it decodes there, and moves while it does.",
  }),
  "step-timeout": number({
    default: 60,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "ENGINE",
    help:
      "An instance whose step takes longer hangs, although its process answers: it ends and is " +
      "replaced, and its requests go on elsewhere. With the CPU executor there is more for each token " +
      "of the step, by the model's size and the cores: 4 s for 7B on one. It may be noticed up to a " +
      "quarter of the time late. 0: steps may take any time.",
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
    help: "An instance that says nothing for so long hangs: it is killed and replaced, and its " +
      "requests go on elsewhere. One whose process ends is noticed at once.",
  }),
  "drain-timeout": number({
    default: 30,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "MANAGER",
    help: "Time that the requests of an instance get to leave or finish when it is scaled down, " +
      "removed, or gets SIGTERM. What is left goes on elsewhere from the tokens that it has.",
  }),
} satisfies ArgumentTable;

/** Options of this program for roles that run apart. */
export const roleExtras = {
  "manager-address": text({
    default: null,
    defaultText: "unix:$XDG_RUNTIME_DIR/llumnix/manager.sock, or the same in $TMPDIR/llumnix-UID",
    metavar: "ADDRESS",
    section: "MANAGER",
    help: "Where manager, API servers and instances meet: unix:PATH or tcp:HOST:PORT. Without it " +
      "the processes of one user find each other. Unix sockets are for their user only; TCP needs " +
      "--cluster-key-file.",
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

/** Options of this program for instances that may outlive their manager. */
export const orphanExtras = {
  "orphan-timeout": number({
    default: 300,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "MANAGER",
    help: "Time that an instance serves on without a manager. A manager that is started again by " +
      "then finds the instances and their requests; after it they end by themselves.",
  }),
} satisfies ArgumentTable;

/** Options of this program that concern the service. */
export const serverExtras = {
  "instance-isolation": choice({
    choices: ["auto", "process", "none"],
    default: "auto",
    section: "SERVER",
    help: "Where instances run: each in a process of its own, or, with --device sim or null, all " +
      "within this process. `auto` is `none` for --device sim.",
  }),
  "max-queued-requests": integer({
    default: 1024,
    min: 1,
    section: "SERVER",
    help: "Requests in the service at once; more are refused with HTTP 429.",
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
  "shutdown-timeout": number({
    default: 30,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    section: "SERVER",
    help: "Time that running requests get to finish after SIGTERM.",
  }),
  "priority-headroom-blocks": integer({
    default: null,
    min: 0,
    defaultText: "88% of the instance's blocks",
    section: "MANAGER",
    help:
      "With --load-metric virtual_usage: blocks that an instance with running requests of high " +
      "priority counts as used besides, so that these decode faster. The default leaves to its " +
      "requests the share that the paper found good: 1600 tokens of 13616.",
  }),
  "admin-token": text({
    default: null,
    metavar: "TOKEN",
    isSecret: true,
    section: "SERVER",
    help: "Opens the routes under /admin/ to those who send `Authorization: Bearer TOKEN`: GET " +
      "instances and requests, POST instances (adds one), POST instances/ID/drain and .../keep, " +
      'DELETE instances/ID (drains and stops it), POST requests/ID/migrate {"instance": ID} ' +
      "(with --enable-migration). Changes of instances are answered with 202 at once; GET instances " +
      "tells how they go. Where roles run apart, the manager and its API servers need the same token. " +
      "The environment variable LLUMNIX_ADMIN_TOKEN does the same, unseen by `ps`.",
  }),
  "print-config": flag({
    section: null,
    help: "Print each argument's effective value and where it comes from, and exit.",
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
} satisfies ArgumentTable;

export const instanceArguments = {
  "log-filename": text({ default: null, section: null, help: "Log to this file besides stderr." }),
  "instance-id": text({
    default: null,
    defaultText: "one of its own",
    section: null,
    help: "Name of this instance, which no other that runs has.",
  }),
  "host-share": integer({
    default: 1,
    min: 1,
    section: null,
    help: "Instances that share this host: memory and cores are divided by it.",
  }),
  "started-by": choice({
    choices: ["hand", "manager", "api-server"],
    default: "hand",
    section: null,
    help: "Who starts this process. What is started by hand is ended by hand (SIGTERM, SIGINT), " +
      "and then not replaced.",
  }),
  "drain-timeout": lifecycleExtras["drain-timeout"],
  ...orphanExtras,
  ...roleExtras,
} satisfies ArgumentTable;

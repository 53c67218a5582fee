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
    help: "Threads of the CPU executor of one instance.",
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
      'DELETE instances/ID (drains and stops it), POST requests/ID/migrate {"instance": ID}. ' +
      "Changes of instances are answered with 202 at once; GET instances tells how they go. The " +
      "environment variable LLUMNIX_ADMIN_TOKEN does the same, unseen by `ps`.",
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
  "instance-id": text({ default: null, section: null, help: "Id of this instance." }),
  "manager-address": text({
    default: null,
    section: null,
    help: "Address of the manager's bus, to which the instance connects.",
  }),
  "host-share": integer({
    default: 1,
    min: 1,
    section: null,
    help: "Instances that share this host: memory and cores are divided by it.",
  }),
} satisfies ArgumentTable;

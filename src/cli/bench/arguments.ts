/** Arguments of `llumnix bench`: those of `vllm bench serve`, Llumnix's, and this program's own. */
import { backends } from "../../bench/backends/backends.ts";
import { ADMIN_TOKEN_VARIABLE } from "../../roles/admin_token.ts";
import {
  accepted,
  type ArgumentTable,
  choice,
  flag,
  integer,
  json,
  list,
  number,
  type OptionsOf,
  refused,
  text,
} from "../arguments/argument.ts";
import type { Group } from "../arguments/tables.ts";

const serverArguments = {
  "backend": choice({
    choices: Object.keys(backends),
    default: "openai",
    help: "How the server is asked: openai or vllm, by streamed completions; openai-chat, by " +
      "streamed chat completions; llumnix, by /generate_benchmark, which measures on the server.",
  }),
  "base-url": text({
    default: null,
    defaultText: "http://HOST:PORT",
    metavar: "URL",
    help: "Address of the server, http or https.",
  }),
  "host": text({ default: "127.0.0.1", help: "Host of the server." }),
  "port": integer({ default: 8000, min: 1, max: 65535, help: "Port of the server." }),
  "endpoint": text({
    default: null,
    defaultText: "that of the backend",
    metavar: "PATH",
    help: "Route that requests are sent to, such as /v1/completions.",
  }),
  "header": list({
    default: null,
    metavar: "KEY=VALUE",
    help: "Headers of each request. OPENAI_API_KEY in the environment sets `Authorization`.",
  }),
  "model": text({
    default: null,
    defaultText: "the first that the server names",
    help: "Name of the model.",
  }),
  "served-model-name": text({
    default: null,
    defaultText: "--model",
    help: "Name of the model in requests.",
  }),
  "tokenizer": text({
    default: null,
    defaultText: "the server's /tokenize, or else an estimate",
    metavar: "MODEL",
    help:
      "Directory, or name in the Hugging Face cache, whose tokenizer.json gives prompts their " +
      "lengths.",
  }),
  "admin-token": text({
    default: null,
    metavar: "TOKEN",
    isSecret: true,
    environment: ADMIN_TOKEN_VARIABLE,
    help:
      "Watches the instances by the admin routes of `llumnix serve`, for the timeline of --html.",
  }),
  "ready-check-timeout-sec": integer({
    default: 0,
    min: 0,
    max: 86400,
    help: "Time to wait until the server answers. 0: it must answer now.",
  }),
  "serve": text({
    default: null,
    metavar: "COMMAND",
    help:
      'Starts the server, and stops it at the end: options of `llumnix serve` in quotes ("--model ' +
      'DIR --initial-instances 4"), or another command line, whose address --base-url or --port says.',
  }),
  "compare": list({
    default: null,
    metavar: "SERVER",
    help:
      "Two servers, A and B, each as in --serve or as a URL. The same requests go to A and to B " +
      "in turn; the table shows their figures, and the ratios within a round.",
  }),
  "rounds": integer({
    default: 1,
    min: 1,
    max: 100,
    help: "With --compare: how often both are measured. Figures are medians over the rounds.",
  }),
} satisfies ArgumentTable;

const loadArguments = {
  "num-prompts": integer({
    default: 1000,
    min: 1,
    max: 10_000_000,
    help: "Number of requests.",
  }),
  "request-rate": number({
    default: null,
    above: 0,
    acceptsInfinity: true,
    defaultText: "inf",
    help: "Requests per second; inf sends all at once.",
  }),
  "burstiness": text({
    default: "1",
    metavar: "NUMBER",
    help: "Shape of the gamma distribution of the gaps between requests: 1 is Poisson, less is " +
      "burstier, inf means equal gaps.",
  }),
  "max-concurrency": integer({
    default: null,
    min: 1,
    max: 1_000_000,
    help: "Most requests that run at once. With it the load is not open any more: latency counts " +
      "from when a place is free, and the wait for a place is reported apart.",
  }),
  "ramp-up-strategy": choice({
    choices: ["linear", "exponential"],
    default: null,
    help: "Let the rate go from --ramp-up-start-rps to --ramp-up-end-rps over the requests.",
  }),
  "ramp-up-start-rps": number({
    default: null,
    above: 0,
    help: "Requests per second at the start of a ramp.",
  }),
  "ramp-up-end-rps": number({
    default: null,
    above: 0,
    help: "Requests per second at the end of a ramp.",
  }),
  "qps": number({
    default: null,
    above: 0,
    help: "Llumnix's form of --request-rate; --distribution says how the gaps are drawn.",
  }),
  "distribution": choice({
    choices: ["burst", "uniform", "poisson", "gamma"],
    default: "poisson",
    help: "With --qps: the gaps between requests. gamma takes --coefficient-variation.",
  }),
  "coefficient-variation": number({
    default: null,
    above: 0,
    aliases: ["--cv"],
    help: "With --distribution gamma: standard deviation of the gaps divided by their mean.",
  }),
  "trace-speedup": number({
    default: null,
    above: 0,
    defaultText: "1 for mooncake without a rate",
    help: "Send at the times of the dataset (burstgpt, mooncake), so many times faster.",
  }),
  "high-priority": number({
    default: 0,
    min: 0,
    max: 1,
    aliases: ["--priority-ratio"],
    help: "Fraction of the requests that have high priority.",
  }),
  "num-warmups": integer({
    default: 0,
    min: 0,
    max: 100_000,
    help: "Requests sent before, which are not measured.",
  }),
  "seed": integer({
    default: 0,
    min: 0,
    max: 2 ** 32 - 1,
    help: "Seed of lengths, texts, order, times and priorities.",
  }),
} satisfies ArgumentTable;

const datasetArguments = {
  "dataset-name": choice({
    choices: ["random", "sharegpt", "burstgpt", "custom", "mooncake"],
    default: "random",
    help: "random: words, with lengths of --random-*. sharegpt: JSON of conversations. burstgpt: " +
      'BurstGPT\'s CSV, the rows of GPT-4. custom: JSONL of {"prompt", "output_tokens", ' +
      '"priority"}. mooncake: JSONL of {"timestamp", "input_length", "output_length", "hash_ids"}.',
  }),
  "dataset-path": text({ default: null, metavar: "FILE", help: "File of the dataset." }),
  "no-oversample": flag({
    help: "Send fewer requests if the file has fewer than --num-prompts, instead of some twice.",
  }),
  "disable-shuffle": flag({ help: "Take the rows of the file in their order." }),
  "random-input-len": integer({
    default: 1024,
    min: 1,
    max: 4_000_000,
    help: "Mean tokens of a prompt.",
  }),
  "random-output-len": integer({
    default: 128,
    min: 1,
    max: 4_000_000,
    help: "Mean tokens of an answer.",
  }),
  "random-range-ratio": number({
    default: 0,
    min: 0,
    max: 0.999,
    help: "Lengths are uniform from the mean times 1 - RATIO to the mean times 1 + RATIO.",
  }),
  "random-prefix-len": integer({
    default: 0,
    min: 0,
    max: 4_000_000,
    help: "Tokens that all prompts begin with, added to their lengths.",
  }),
  "sharegpt-output-len": integer({
    default: null,
    min: 1,
    defaultText: "as recorded",
    help: "Tokens of each answer.",
  }),
  "custom-output-len": integer({
    default: 256,
    min: 1,
    help: "Tokens of the answers to rows without output_tokens.",
  }),
  "skip-chat-template": flag({
    status: accepted(
      "prompts are sent as they are; --backend openai-chat lets the server apply it",
    ),
    help: "Do not apply a chat template.",
  }),
} satisfies ArgumentTable;

const requestArguments = {
  "ignore-eos": flag({
    help: "Answers go on until their full length. On for the dataset random, as in vLLM.",
  }),
  "logprobs": integer({ default: null, min: 0, max: 20, help: "Log probabilities to ask for." }),
  "temperature": number({ default: null, min: 0, defaultText: "0", help: "Sampling temperature." }),
  "top-p": number({ default: null, above: 0, max: 1, help: "Top-p sampling." }),
  "top-k": integer({ default: null, min: -1, help: "Top-k sampling." }),
  "min-p": number({ default: null, min: 0, max: 1, help: "Min-p sampling." }),
  "frequency-penalty": number({ default: null, min: -2, max: 2, help: "Frequency penalty." }),
  "presence-penalty": number({ default: null, min: -2, max: 2, help: "Presence penalty." }),
  "repetition-penalty": number({ default: null, above: 0, help: "Repetition penalty." }),
  "extra-body": json({ default: null, help: "JSON object of fields added to each request." }),
  "request-id-prefix": text({
    default: null,
    defaultText: "bench-RANDOM-",
    help: "What the header x-request-id of each request begins with.",
  }),
} satisfies ArgumentTable;

const resultArguments = {
  "percentile-metrics": text({
    default: "ttft,tpot,itl,e2el",
    metavar: "NAMES",
    help: "Latencies to report: ttft, tpot, itl, e2el, with commas between them.",
  }),
  "metric-percentiles": text({
    default: "99",
    metavar: "NUMBERS",
    help: "Percentiles to report, with commas between them, such as 25,50,99.9.",
  }),
  "goodput": list({
    default: null,
    metavar: "NAME:MS",
    help: "Counts the requests within these limits: ttft, tpot and e2el, such as ttft:500 tpot:50.",
  }),
  "save-result": flag({ help: "Write the result as JSON with vLLM's keys." }),
  "save-detailed": flag({ help: "Add the values of each request to the JSON." }),
  "append-result": flag({ help: "Add the result to the end of the JSON file." }),
  "result-dir": text({ default: null, metavar: "DIRECTORY", help: "Where the JSON goes." }),
  "result-filename": text({
    default: null,
    defaultText: "LABEL-RATEqps-MODEL-DATE.json",
    metavar: "NAME",
    help: "Name of the JSON file.",
  }),
  "label": text({ default: null, defaultText: "--backend", help: "Name of the result." }),
  "metadata": list({ default: null, metavar: "KEY=VALUE", help: "Entries added to the JSON." }),
  "csv": text({ default: null, metavar: "FILE", help: "Write a row for each request." }),
  "save-trace": text({
    default: null,
    metavar: "FILE",
    help:
      "Write times and lengths of the requests as a .jsonl that `llumnix simulate --trace` reads.",
  }),
  "html": text({
    default: null,
    metavar: "FILE",
    help: "Write a report: distributions, the load over time, instances and migrations.",
  }),
  "disable-tqdm": flag({ help: "Show no progress." }),
} satisfies ArgumentTable;

const vllmOnlyArguments = {
  "trust-remote-code": flag({
    status: accepted("no code of a model is run"),
    help: "Trust remote code.",
  }),
  "tokenizer-mode": text({
    default: "auto",
    status: accepted("--tokenizer reads tokenizer.json"),
    help: "Mode of the tokenizer.",
  }),
  "use-beam-search": flag({
    status: refused("requests have one output; --extra-body can ask a server for more"),
    help: "Beam search.",
  }),
  "lora-modules": list({
    default: null,
    status: refused("a run measures one model; set --served-model-name to the name of an adapter"),
    help: "LoRA modules to choose from.",
  }),
  "profile": flag({
    status: refused("this program starts no profiler of a server"),
    help: "Use the server's profiler.",
  }),
} satisfies ArgumentTable;

export const benchGroups: readonly Group[] = [
  { title: "Server", section: "SERVER", table: serverArguments },
  { title: "Load", section: "SERVER", table: loadArguments },
  { title: "Dataset", section: "SERVER", table: datasetArguments },
  { title: "Requests", section: "SERVER", table: requestArguments },
  { title: "Results", section: "SERVER", table: resultArguments },
  { title: "Other arguments of vllm bench serve", section: "SERVER", table: vllmOnlyArguments },
];

export type BenchOptions = OptionsOf<
  & typeof serverArguments
  & typeof loadArguments
  & typeof datasetArguments
  & typeof requestArguments
  & typeof resultArguments
  & typeof vllmOnlyArguments
>;

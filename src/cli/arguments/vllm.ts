/** vLLM 0.4.2's engine arguments, in the order of the reference page. */
import {
  accepted,
  type ArgumentTable,
  choice,
  flag,
  integer,
  json,
  later,
  list,
  number,
  refused,
  text,
} from "./argument.ts";
import { noRay } from "./compatibility.ts";

const noLora = refused("Llumnix does not support multi-LoRA serving");
const noVision = refused("vision models are not supported");
const noSpeculation = refused("Llumnix does not support speculative decoding");
const noTokenizerPool = accepted("the API server tokenizes by itself, without a pool");

export const vllmArguments = {
  "model": text({
    default: null,
    defaultText: "llumnix-story, a very small built-in model",
    help:
      "Model to serve: a local directory in Hugging Face layout, or a hub name that is looked " +
      "up in the local Hugging Face cache. Nothing is downloaded. Built in are llumnix-story, " +
      "which tells short stories and does sums, and llumnix-tiny, which has random weights.",
  }),
  "served-model-name": list({
    default: null,
    defaultText: "the value of --model",
    help: "Names of the model in the HTTP API. Answers carry the first one.",
  }),
  "tokenizer": text({
    default: null,
    defaultText: "the value of --model",
    help: "Tokenizer to use: a directory or a hub name, as for --model.",
  }),
  "skip-tokenizer-init": flag({
    help: "Run without tokenizer and detokenizer: prompts must be token ids.",
  }),
  "revision": text({
    default: null,
    help: "Revision of the model in the local Hugging Face cache: branch, tag or commit.",
  }),
  "code-revision": text({
    default: null,
    help: "Revision of the model's code. No effect: code that comes with a model is never run.",
  }),
  "tokenizer-revision": text({
    default: null,
    help: "Revision of the tokenizer in the local Hugging Face cache.",
  }),
  "tokenizer-mode": choice({
    choices: ["auto", "slow"],
    default: "auto",
    status: accepted("there is one tokenizer implementation"),
    help: "Tokenizer implementation.",
  }),
  "trust-remote-code": flag({
    status: accepted("code that comes with a model is never run"),
    help: "Trust code that comes with the model.",
  }),
  "download-dir": text({
    default: null,
    defaultText: "the Hugging Face cache",
    help: "Directory of the local cache in which hub names are looked up.",
  }),
  "load-format": choice({
    choices: ["auto", "pt", "safetensors", "npcache", "dummy", "tensorizer"],
    default: "auto",
    refusedChoices: {
      pt: "weights are read from safetensors files only",
      npcache: "weights are read from safetensors files only",
      tensorizer: "weights are read from safetensors files only",
    },
    help: "Format of the weights. `dummy` makes random weights from --seed.",
  }),
  "dtype": choice({
    choices: ["auto", "half", "float16", "bfloat16", "float", "float32"],
    default: "auto",
    help: "Type of weights and activations. `auto` is the type of the model's config.",
  }),
  "kv-cache-dtype": choice({
    choices: ["auto", "fp8"],
    default: "auto",
    help:
      "Type of the KV cache. `auto` is the type of the model. `fp8` (e4m3, without scaling factors) " +
      "takes half the memory and rounds more. It is for --device cuda from compute capability 8.9 on.",
  }),
  "quantization-param-path": text({
    default: null,
    status: refused("an FP8 KV cache has no scaling factors here"),
    help: "File with scaling factors of an FP8 KV cache.",
  }),
  "max-model-len": integer({
    default: null,
    min: 1,
    defaultText: "from the model's config",
    help: "Longest sequence in tokens, prompt and output together.",
  }),
  "guided-decoding-backend": choice({
    choices: ["outlines", "lm-format-enforcer"],
    default: "outlines",
    status: accepted("guided decoding is not offered"),
    help: "Engine of guided decoding.",
  }),
  "worker-use-ray": flag({ status: noRay, help: "Use Ray for the workers of an instance." }),
  "engine-use-ray": flag({ status: noRay, help: "Run the engine as a Ray actor." }),
  "pipeline-parallel-size": integer({
    default: 1,
    min: 1,
    aliases: ["-pp"],
    status: later,
    help: "Pipeline stages of an instance.",
  }),
  "tensor-parallel-size": integer({
    default: 1,
    min: 1,
    max: 64,
    aliases: ["-tp"],
    help:
      "Devices of an instance, among which its model is divided: for models that are larger than a device. " +
      "For --device cuda, and needs NCCL. The number must divide the model's heads.",
  }),
  "max-parallel-loading-workers": integer({
    default: null,
    min: 1,
    status: accepted("an instance loads its weights by mapping them"),
    help: "Workers that load weights at the same time.",
  }),
  "ray-workers-use-nsight": flag({ status: noRay, help: "Profile Ray workers with nsight." }),
  "block-size": choice({
    choices: [8, 16, 32],
    default: 16,
    help: "Tokens in a block of the KV cache.",
  }),
  "enable-prefix-caching": flag({
    status: refused("Llumnix does not support automatic prefix caching"),
    help: "Reuse the KV cache of common prefixes.",
  }),
  "use-v2-block-manager": flag({
    status: refused("it is for speculative decoding, which Llumnix does not support"),
    help: "Use BlockSpaceManagerV2.",
  }),
  "num-lookahead-slots": integer({
    default: 0,
    min: 0,
    status: refused("lookahead slots are for speculative decoding, which is not supported"),
    help: "Slots kept free for speculative decoding.",
  }),
  "seed": integer({
    default: 0,
    min: 0,
    help:
      "Seed of all random numbers: of requests that have no seed of their own, and of dummy weights.",
  }),
  "swap-space": number({
    default: 4,
    min: 0,
    help: "Host memory of each instance for the blocks of preempted requests, in GiB. Used only " +
      "with --preemption-mode swap.",
  }),
  "gpu-memory-utilization": number({
    default: 0.9,
    above: 0,
    max: 1,
    help:
      "Fraction of memory for weights and KV cache, from 0 to 1. On a CPU it is a fraction of " +
      "the memory that is free at start.",
  }),
  "num-gpu-blocks-override": integer({
    default: null,
    min: 1,
    defaultText: "as many as fit",
    help: "Blocks of the KV cache, instead of the number that fits into memory.",
  }),
  "max-num-batched-tokens": integer({
    default: null,
    min: 1,
    defaultText: "the larger of 2048 and the model length",
    help: "Maximum number of tokens in one step. If it is not given, only a step of a single " +
      "prompt may have more than 2048.",
  }),
  "max-num-seqs": integer({
    default: 256,
    min: 1,
    help: "Maximum number of sequences in one step.",
  }),
  "max-logprobs": integer({
    default: 5,
    min: 0,
    help: "Maximum number of log probabilities per token that a request may ask for.",
  }),
  "disable-log-stats": flag({ help: "Do not log statistics." }),
  "quantization": choice({
    choices: ["aqlm", "awq", "fp8", "gptq", "squeezellm", "gptq_marlin", "marlin"],
    default: null,
    aliases: ["-q"],
    laterChoices: ["aqlm", "awq", "gptq", "squeezellm", "gptq_marlin", "marlin"],
    help:
      "Method with which the weights are quantized. `fp8` rounds the weights of linear layers, but not of the " +
      "embedding and the head, to 8 bits (e4m3) with a scale for each output when the model is loaded, or takes " +
      "those of a checkpoint in this form; without it such a checkpoint is widened to --dtype. It is for " +
      "--device cuda from compute capability 8.9 on.",
  }),
  "enforce-eager": flag({ help: "Never use CUDA graphs. No effect on devices other than GPUs." }),
  "max-seq-len-to-capture": integer({
    default: 8192,
    min: 1,
    aliases: ["--max-context-len-to-capture"],
    help: "Longest sequence in tokens that CUDA graphs cover; longer sequences run eagerly. No " +
      "effect on devices other than GPUs. --max-context-len-to-capture is its deprecated " +
      "name.",
  }),
  "disable-custom-all-reduce": flag({
    status: accepted("there is one implementation of all-reduce"),
    help: "Do not use vLLM's own all-reduce.",
  }),
  "tokenizer-pool-size": integer({
    default: 0,
    min: 0,
    status: noTokenizerPool,
    help: "Size of the pool for asynchronous tokenization.",
  }),
  "tokenizer-pool-type": text({
    default: "ray",
    status: noTokenizerPool,
    help: "Kind of the tokenizer pool.",
  }),
  "tokenizer-pool-extra-config": json({
    default: null,
    status: noTokenizerPool,
    help: "Further configuration of the tokenizer pool, as JSON.",
  }),
  "enable-lora": flag({ status: noLora, help: "Serve LoRA adapters." }),
  "max-loras": integer({
    default: 1,
    min: 1,
    status: noLora,
    help: "Maximum number of LoRA adapters in one batch.",
  }),
  "max-lora-rank": integer({ default: 16, min: 1, status: noLora, help: "Largest LoRA rank." }),
  "lora-extra-vocab-size": integer({
    default: 256,
    min: 0,
    status: noLora,
    help: "Largest vocabulary that a LoRA adapter may add.",
  }),
  "lora-dtype": choice({
    choices: ["auto", "float16", "bfloat16", "float32"],
    default: "auto",
    status: noLora,
    help: "Type of LoRA adapters.",
  }),
  "max-cpu-loras": integer({
    default: null,
    min: 1,
    status: noLora,
    help: "Maximum number of LoRA adapters in host memory.",
  }),
  "fully-sharded-loras": flag({ status: noLora, help: "Shard LoRA adapters fully." }),
  "device": choice({
    choices: ["auto", "cuda", "neuron", "cpu"],
    default: "auto",
    refusedChoices: {
      neuron: "the devices are cuda and cpu",
    },
    extraChoices: {
      null: "an executor that does no arithmetic, for benchmarks of the server",
      sim: "steps take the time that a profile says: --gpu-type, --profiling-result-file-path",
    },
    hiddenChoices: ["null-cuda"],
    help: "Device of the instances. `auto` is CUDA if an NVIDIA GPU is found, else the CPU.",
  }),
  "image-input-type": text({ default: null, status: noVision, help: "Kind of image input." }),
  "image-token-id": integer({ default: null, status: noVision, help: "Token id of an image." }),
  "image-input-shape": text({ default: null, status: noVision, help: "Largest image shape." }),
  "image-feature-size": integer({
    default: null,
    status: noVision,
    help: "Size of image features.",
  }),
  "scheduler-delay-factor": number({
    default: 0,
    min: 0,
    help: "Delay before the next prompt is scheduled, as a multiple of the last prompt's latency.",
  }),
  "enable-chunked-prefill": flag({
    status: refused("Llumnix does not support chunked prefill"),
    help: "Split prompts over several steps.",
  }),
  "speculative-model": text({
    default: null,
    status: noSpeculation,
    help: "Draft model of speculative decoding.",
  }),
  "num-speculative-tokens": integer({
    default: null,
    status: noSpeculation,
    help: "Tokens that the draft model proposes at once.",
  }),
  "speculative-max-model-len": integer({
    default: null,
    status: noSpeculation,
    help: "Longest sequence in tokens that the draft model takes.",
  }),
  "ngram-prompt-lookup-max": integer({
    default: null,
    status: noSpeculation,
    help: "Longest n-gram of prompt lookup.",
  }),
  "ngram-prompt-lookup-min": integer({
    default: null,
    status: noSpeculation,
    help: "Shortest n-gram of prompt lookup.",
  }),
  "model-loader-extra-config": json({
    default: null,
    status: accepted("the loader has no further configuration"),
    help: "Further configuration of the model loader, as JSON.",
  }),
  "disable-log-requests": flag({
    help: "Do not log requests, in server or manager. Wins over --log-prompts.",
  }),
  "max-log-len": integer({
    default: null,
    min: 0,
    defaultText: "2048; vLLM logs all",
    help: "Maximum number of prompt characters or token ids that --log-prompts logs of a request.",
  }),
} satisfies ArgumentTable;

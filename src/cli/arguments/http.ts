/** Arguments of the HTTP server: those of vLLM's OpenAI server, and --unknown-fields and --api-key-file. */
import { API_KEY_VARIABLE } from "../../core/environment.ts";
import { type ArgumentTable, choice, flag, json, list, text } from "./argument.ts";

export const httpArguments = {
  "ssl-ca-certs": text({
    default: null,
    help: "PEM file with the authorities that sign client certificates. Needs --ssl-cert-reqs 2.",
  }),
  "ssl-cert-reqs": choice({
    choices: [0, 1, 2],
    default: 0,
    refusedChoices: { 1: "Deno's TLS server cannot check certificates that it does not require" },
    help: "Client certificates: 0 does not ask for one, 2 requires one signed by --ssl-ca-certs.",
  }),
  "api-key": list({
    default: null,
    isSecret: true,
    environment: API_KEY_VARIABLE,
    repeats: true,
    metavar: "KEY",
    help: "Keys of clients, which send one as `Authorization: Bearer KEY`. Every /v1, " +
      "/generate and /tokenize route, and /detokenize, answers 401 without a valid key. The option may be repeated. The " +
      "environment variable VLLM_API_KEY adds a key without showing it in `ps`. Default: no " +
      "key is needed.",
  }),
  "api-key-file": text({
    default: null,
    help: "File with more keys, one per line. Only its owner should be able to read it.",
  }),
  "chat-template": text({
    default: null,
    defaultText: "the model's own",
    help: "Chat template to use instead of the model's: a file, or the Jinja template itself.",
  }),
  "response-role": text({
    default: "assistant",
    help: "Role of chat answers. Not used for requests with add_generation_prompt false.",
  }),
  "unknown-fields": choice({
    choices: ["ignore", "warn", "refuse"],
    default: "warn",
    help: "Fields of requests that this server does not know: `ignore` drops them, `warn` also " +
      "logs each name once, `refuse` answers 400, which finds misspelt fields. Known fields " +
      "that this server cannot honour are always refused.",
  }),
  "allowed-origins": json({
    default: null,
    defaultText: "none: only pages of this server; vLLM allows all",
    help: 'Web origins whose pages may read answers (CORS), as JSON: ["https://example.com"], or ' +
      '["*"] for all.',
  }),
  "allowed-methods": json({
    default: null,
    defaultText: '["*"]',
    help: "HTTP methods that pages of allowed origins may use, as JSON.",
  }),
  "allowed-headers": json({
    default: null,
    defaultText: '["*"]',
    help: "Request headers that pages of allowed origins may send, as JSON.",
  }),
  "allow-credentials": flag({
    help: "Let pages of allowed origins send cookies and other credentials.",
  }),
  "root-path": text({
    default: "",
    help: "Path prefix under which a proxy serves this server, such as /llm. Requests may carry " +
      "the prefix or not.",
  }),
} satisfies ArgumentTable;

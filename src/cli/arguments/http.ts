/** Arguments of the HTTP server that vLLM's OpenAI server has as well, and those of this program beside them. */
import { API_KEY_VARIABLE } from "../../roles/api_keys.ts";
import { type ArgumentTable, choice, flag, json, list, text } from "./argument.ts";

export const httpArguments = {
  "ssl-ca-certs": text({
    default: null,
    help:
      "PEM file with the authorities that client certificates must come from; with --ssl-cert-reqs 2.",
  }),
  "ssl-cert-reqs": choice({
    choices: [0, 1, 2],
    default: 0,
    refusedChoices: { 1: "Deno's TLS server cannot check certificates that it does not require" },
    help: "Whether HTTPS clients must show a certificate: 0 no, 2 yes, one of --ssl-ca-certs.",
  }),
  "api-key": list({
    default: null,
    isSecret: true,
    environment: API_KEY_VARIABLE,
    repeats: true,
    metavar: "KEY",
    help:
      "Key, or several, that clients may send as `Authorization: Bearer KEY`; without one of them every /v1 and /generate " +
      "route answers 401. The option may be repeated. The environment variable VLLM_API_KEY adds one, unseen by `ps`. Default: no key " +
      "is needed.",
  }),
  "api-key-file": text({
    default: null,
    help: "File with further keys, one a line. Only its owner should be able to read it.",
  }),
  "chat-template": text({
    default: null,
    defaultText: "the model's own",
    help: "Chat template to use instead of the model's: a file, or the Jinja template itself.",
  }),
  "response-role": text({
    default: "assistant",
    help: "Role of chat answers, unless the request has add_generation_prompt false.",
  }),
  "unknown-fields": choice({
    choices: ["ignore", "warn", "refuse"],
    default: "warn",
    help:
      "What happens to fields of requests that this server does not know: `warn` ignores them and logs each " +
      "name once, `refuse` answers 400, which finds misspelt fields. Known fields that this server cannot " +
      "honour are always refused.",
  }),
  "allowed-origins": json({
    default: null,
    defaultText: "none: only pages of this server; vLLM allows all",
    help:
      'Origins whose pages browsers let read answers, as JSON: ["https://example.com"], or ["*"] for all.',
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
    help: "Path under which a proxy serves this server, such as /llm; requests may have it or not.",
  }),
} satisfies ArgumentTable;

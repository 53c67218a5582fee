/** Environment variables that stand for arguments. */

/** A client's key, as `--api-key`: all users of a host see command lines. The name is vLLM's. */
export const API_KEY_VARIABLE = "VLLM_API_KEY";

/** `ucs_status_t` is a packed enumeration: one signed byte, and what follows in the register is waste. */
const status = "i8";

/** Signatures of libucp, as in ucp.h of 1.13 to 1.22. Handles and addresses are u64. */
export const ucpSymbols = {
  ucp_get_version: { parameters: ["buffer", "buffer", "buffer"], result: "void" },
  // prefix, file, config*
  ucp_config_read: { parameters: ["buffer", "buffer", "buffer"], result: status },
  ucp_config_modify: { parameters: ["u64", "buffer", "buffer"], result: status },
  ucp_config_release: { parameters: ["u64"], result: "void" },
  // major, minor, params*, config, context*
  ucp_init_version: { parameters: ["u32", "u32", "buffer", "u64", "buffer"], result: status },
  ucp_cleanup: { parameters: ["u64"], result: "void" },
  ucp_context_query: { parameters: ["u64", "buffer"], result: status },
  ucp_context_print_info: { parameters: ["u64", "u64"], result: "void" },
  ucp_worker_create: { parameters: ["u64", "buffer", "buffer"], result: status },
  ucp_worker_destroy: { parameters: ["u64"], result: "void" },
  ucp_worker_get_address: { parameters: ["u64", "buffer", "buffer"], result: status },
  ucp_worker_release_address: { parameters: ["u64", "u64"], result: "void" },
  ucp_worker_progress: { parameters: ["u64"], result: "u32" },
  ucp_worker_get_efd: { parameters: ["u64", "buffer"], result: status },
  ucp_worker_arm: { parameters: ["u64"], result: status },
  ucp_ep_create: { parameters: ["u64", "buffer", "buffer"], result: status },
  ucp_ep_close_nbx: { parameters: ["u64", "buffer"], result: "i64" },
  ucp_ep_flush_nbx: { parameters: ["u64", "buffer"], result: "i64" },
  ucp_ep_print_info: { parameters: ["u64", "u64"], result: "void" },
  ucp_mem_map: { parameters: ["u64", "buffer", "buffer"], result: status },
  ucp_mem_query: { parameters: ["u64", "buffer"], result: status },
  ucp_mem_unmap: { parameters: ["u64", "u64"], result: status },
  ucp_rkey_pack: { parameters: ["u64", "u64", "buffer", "buffer"], result: status },
  ucp_rkey_buffer_release: { parameters: ["u64"], result: "void" },
  ucp_ep_rkey_unpack: { parameters: ["u64", "buffer", "buffer"], result: status },
  ucp_rkey_destroy: { parameters: ["u64"], result: "void" },
  // endpoint, local, byte count, remote, key, param*
  ucp_put_nbx: { parameters: ["u64", "u64", "u64", "u64", "u64", "buffer"], result: "i64" },
  ucp_get_nbx: { parameters: ["u64", "u64", "u64", "u64", "u64", "buffer"], result: "i64" },
  ucp_request_check_status: { parameters: ["u64"], result: status },
  ucp_request_cancel: { parameters: ["u64", "u64"], result: "void" },
  ucp_request_free: { parameters: ["u64"], result: "void" },
  // Of libucs, which libucp brings along.
  ucs_status_string: { parameters: [status], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Signatures of libnccl, as in nccl.h of 2.19 to 2.32. Handles and addresses are u64. */

/** `ncclUniqueId`, which C passes by value: 128 bytes. */
const uniqueId = {
  struct: [
    ...["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64"] as const,
    ...["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64"] as const,
  ],
} as const;

export const ncclSymbols = {
  ncclGetVersion: { parameters: ["buffer"], result: "i32" },
  ncclGetUniqueId: { parameters: ["buffer"], result: "i32" },
  ncclGetErrorString: { parameters: ["i32"], result: "pointer" },
  ncclGetLastError: { parameters: ["u64"], result: "pointer" },
  // comm*, ranks, id, rank, config*
  ncclCommInitRankConfig: {
    parameters: ["buffer", "i32", uniqueId, "i32", "buffer"],
    result: "i32",
  },
  // comms*, ranks, devices*
  ncclCommInitAll: { parameters: ["buffer", "i32", "buffer"], result: "i32" },
  ncclCommGetAsyncError: { parameters: ["u64", "buffer"], result: "i32" },
  ncclGroupStart: { parameters: [], result: "i32" },
  ncclGroupEnd: { parameters: [], result: "i32" },
  // address, count, type, peer, comm, stream
  ncclSend: { parameters: ["u64", "u64", "i32", "i32", "u64", "u64"], result: "i32" },
  ncclRecv: { parameters: ["u64", "u64", "i32", "i32", "u64", "u64"], result: "i32" },
  // from, to, count of a rank, type, comm, stream
  ncclAllGather: { parameters: ["u64", "u64", "u64", "i32", "u64", "u64"], result: "i32" },
  ncclCommFinalize: { parameters: ["u64"], result: "i32" },
  // These two may wait for a peer or for the device: on a thread of the FFI pool, the event loop
  // goes on whatever they do.
  ncclCommAbort: { parameters: ["u64"], result: "i32", nonblocking: true },
  ncclCommDestroy: { parameters: ["u64"], result: "i32", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

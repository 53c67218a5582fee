/** The transfer failed or was cancelled. Some of its bytes may have arrived. */
export class TransferFailedError extends Error {
  override readonly name = "TransferFailedError";
}

/** The destination refused the transfer. No byte moved, and the pair still works. */
export class TransferRefusedError extends Error {
  override readonly name = "TransferRefusedError";
}

/**
 * NCCL did not end a communicator in time. It may still read and write the memory of the last transfer,
 * so that memory stays claimed, and the pair refuses every transfer: restart the process.
 */
export class PairDeadError extends Error {
  override readonly name = "PairDeadError";
}

/** The transfer failed, or was given up: nothing says which bytes have arrived. */
export class TransferFailedError extends Error {
  override readonly name = "TransferFailedError";
}

/** The destination refused the transfer before anything moved. The pair is as it was. */
export class TransferRefusedError extends Error {
  override readonly name = "TransferRefusedError";
}

/**
 * An abort did not return in time. NCCL may still read and write the blocks of the last transfer, so
 * they stay in use, and the pair refuses everything: restart the process.
 */
export class PairDeadError extends Error {
  override readonly name = "PairDeadError";
}

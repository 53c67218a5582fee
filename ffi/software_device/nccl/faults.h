// Faults that tests inject, by environment variable or by call, for all ranks or for one.
#pragma once

namespace soft {

/// Times are milliseconds. All faults are off (0) unless stated.
enum Fault {
  INIT_MS,            // delay before a rank reaches the root of its id
  RETRY_MS,           // for how long a refused connection is tried again (60,000, as the real one)
  CONNECT_MS,         // delay of the first operation with a peer
  GROUP_MS,           // delay of every group before its kernel is in the stream: state 7 for long
  KERNEL_MS,          // delay of every kernel before it moves data
  MB_PER_S,           // bandwidth of a sender; 0: as fast as it goes
  SILENT_DEATH,       // 1: a lost peer looks like a slow one (NVLink, shared memory); 0: error 6
  LATE_ERROR_GROUP,   // the group of this number (from 1) gets error 6 after KERNEL_MS
  LATE_ERROR_ENDS,    // 1: the kernel of that group ends without data; 0: it runs until the abort
  CUT_AFTER_BYTES,    // after this many bytes of a rank the network stays silent
  BREAK_AFTER_BYTES,  // after this many bytes of a rank its connection breaks
  ABORT_MS,           // abort takes that long
  ABORT_WAITS_PEER,   // abort waits at most that long for the peer to abort too
  ABORT_WAITS_DEVICE, // 1: abort waits until no kernel of the process runs, as cudaFree does
  KERNEL_SLOTS,       // kernels that fit on the device at a time; 0: no limit
  DEVICE,             // identity of the device; two ranks with the same one (not 0) are refused
  FAULTS
};

/// The value for a rank, or the one for all ranks.
long fault(Fault fault, int rank);

/// Sets a fault by its name; rank -1: for all ranks, and forgets values of single ranks.
/// Returns false for an unknown name or rank.
bool setFault(const char *name, int rank, long value);

/// All faults as the environment has them: SOFT_NCCL_<NAME>, or SOFT_NCCL_<NAME>_<RANK> for one rank.
void resetFaults();

} // namespace soft

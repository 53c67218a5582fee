// The root of a unique id: waits for every rank, then tells each where the others listen.
#pragma once
#include "sockets.h"
#include <vector>

namespace soft {

/// As callers see it: 128 bytes that only this library reads.
struct UniqueId {
  uint32_t magic;
  int port;
  uint64_t nonce;
  char rest[112];
};
static_assert(sizeof(UniqueId) == 128, "ncclUniqueId has 128 bytes");

/// Starts a root. It keeps a thread and a port until every rank of a communicator has checked in; nothing
/// else ends it, as in the real library. False if no port is left.
bool makeRoot(UniqueId *id);

bool isId(const UniqueId &id);

/// Checks a rank in and learns the port of each rank's listener. GONE: the root refuses (used up, a
/// rank twice, another number of ranks) or its process is dead.
Io checkIn(const UniqueId &id, int rank, int ownPort, std::vector<int> &ports, const Flag &stop);

} // namespace soft

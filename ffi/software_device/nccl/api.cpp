// libnccl's public functions, as far as point-to-point transfers and an all-gather need them, over host memory
// and TCP on 127.0.0.1. NCCL's names, numbers and documented behaviour, made as unkind as the documentation allows:
//
// - A nonblocking call answers 7 and goes on in a thread. Until the state is 0 again every other call on
//   the communicator is refused (4), and the stream work of a group is not in the stream.
// - Init joins the ranks in a ring; the first operation with a peer connects. Both need the peer.
// - A send of more than 1 MiB ends when its receive runs. Sends match receives by order alone.
// - A lost peer, or a peer of other sizes, leaves kernels that hold their stream until the abort. The
//   event of an aborted kernel completes, though no data came.
// - Memory and streams of another device than the communicator's are refused (1).
// - A unique id makes one communicator; an id that nobody uses keeps a thread and a port.
#include "communicator.h"
#include "device.h"
#include "faults.h"
#include <climits>
#include <cstring>
#include <map>
#include <set>
#define API extern "C" __attribute__((visibility("default")))

using namespace soft;

namespace soft {
Counts &counts = *new Counts; // never destroyed: threads count until the process ends
}

typedef std::shared_ptr<Communicator> Owner;

/// The handles that are alive. A call with another one is a misuse; the real library would crash.
static std::map<void *, Owner> &handles = *new std::map<void *, Owner>;
static std::mutex &handlesLock = *new std::mutex;
static thread_local int groupDepth = 0;
static thread_local std::vector<std::pair<Owner, Operation>> pending;
static thread_local std::string lastError;

static Result fail(Result result, const std::string &why) {
  lastError = why;
  return result;
}

static Owner find(void *handle, bool isRemoved = false) {
  std::lock_guard<std::mutex> hold(handlesLock);
  const auto found = handles.find(handle);
  if (found == handles.end()) {
    counts.misuses++;
    lastError = "no such communicator, or it is gone";
    return nullptr;
  }
  Owner owner = found->second;
  if (isRemoved) handles.erase(found);
  return owner;
}

/// What a call returns that has begun: a blocking communicator comes back when it is over.
static Result finish(const Owner &owner, Result begun) {
  return begun == IN_PROGRESS && owner->isBlocking ? owner->outcome() : begun;
}

/// The head of ncclConfig_t, which all versions share.
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

API int ncclGetVersion(int *version) {
  *version = 22809;
  return SUCCESS;
}

API const char *ncclGetErrorString(int result) {
  static const char *const TEXTS[] = {
      "no error",         "unhandled cuda error",
      "unhandled system error", "internal error",
      "invalid argument", "invalid usage",
      "remote process exited or there was a network error", "NCCL operation in progress",
  };
  return result >= 0 && result <= IN_PROGRESS ? TEXTS[result] : "unknown result code";
}

API const char *ncclGetLastError(void *handle) {
  static thread_local std::string text;
  std::lock_guard<std::mutex> hold(handlesLock);
  const auto found = handles.find(handle);
  text = found == handles.end() ? lastError : found->second->reason();
  return text.c_str();
}

API int ncclGetUniqueId(UniqueId *id) {
  return makeRoot(id) ? SUCCESS : fail(SYSTEM_ERROR, "no port is left");
}

API int ncclCommInitRankConfig(void **handle, int ranks, UniqueId id, int rank, Config *config) {
  *handle = nullptr;
  if (!config || config->size < 48 || config->magic != 0xcafebeef) {
    return fail(INVALID_ARGUMENT, "the config was not initialised: size, magic");
  }
  if (ranks < 1 || rank < 0 || rank >= ranks) return fail(INVALID_ARGUMENT, "rank out of range");
  if (!isId(id)) return fail(INVALID_ARGUMENT, "not a unique id of this library");
  const bool isBlocking = config->blocking != 0; // INT_MIN, not set: blocking
  Owner owner = std::make_shared<Communicator>(ranks, rank, isBlocking);
  {
    std::lock_guard<std::mutex> hold(handlesLock);
    handles[owner.get()] = owner;
  }
  *handle = owner.get();
  return finish(owner, owner->init(id));
}

/// Blocking communicators, one for each device of the list, all in this process.
API int ncclCommInitAll(void **out, int ranks, const int *devices) {
  if (ranks < 1) return fail(INVALID_ARGUMENT, "no ranks");
  std::vector<int> list(ranks);
  for (int rank = 0; rank < ranks; rank++) list[rank] = devices ? devices[rank] : rank;
  if (std::set<int>(list.begin(), list.end()).size() < list.size()) {
    return fail(INVALID_USAGE, "Duplicate GPU detected: two ranks on one CUDA device");
  }
  UniqueId id;
  if (!makeRoot(&id)) return fail(SYSTEM_ERROR, "no port is left");
  void *current = nullptr;
  cuCtxGetCurrent(&current);
  std::vector<Owner> owners;
  for (int rank = 0; rank < ranks; rank++) {
    void *context = nullptr;
    if (cuDevicePrimaryCtxRetain(&context, list[rank]) || cuCtxSetCurrent(context)) {
      cuCtxSetCurrent(current);
      return fail(CUDA_ERROR, "no such device, or it has failed"); // the root of the id stays, as in earnest
    }
    owners.push_back(std::make_shared<Communicator>(ranks, rank, true));
  }
  cuCtxSetCurrent(current);
  for (const Owner &owner : owners) owner->init(id);
  Result result = SUCCESS;
  for (int rank = 0; rank < ranks; rank++) {
    const Result own = finish(owners[rank], IN_PROGRESS);
    if (own != SUCCESS) result = fail(own, owners[rank]->reason());
    std::lock_guard<std::mutex> hold(handlesLock);
    handles[owners[rank].get()] = owners[rank];
    out[rank] = owners[rank].get();
  }
  return result;
}

API int ncclCommGetAsyncError(void *handle, int *result) {
  const Owner owner = find(handle);
  if (!owner) return INVALID_ARGUMENT;
  *result = owner->asyncError();
  return SUCCESS;
}

API int ncclCommCount(void *handle, int *count) {
  const Owner owner = find(handle);
  if (!owner) return INVALID_ARGUMENT;
  *count = owner->ranks;
  return SUCCESS;
}

API int ncclCommUserRank(void *handle, int *rank) {
  const Owner owner = find(handle);
  if (!owner) return INVALID_ARGUMENT;
  *rank = owner->rank;
  return SUCCESS;
}

API int ncclGroupStart() {
  groupDepth++;
  return SUCCESS;
}

API int ncclGroupEnd() {
  if (groupDepth == 0) {
    counts.misuses++;
    return fail(INVALID_USAGE, "group end without group start");
  }
  if (--groupDepth > 0) return SUCCESS;
  std::map<Owner, std::vector<Operation>> groups;
  for (auto &[owner, operation] : pending) groups[owner].push_back(operation);
  pending.clear();
  // Of several ranks in one thread each waits for the others: all begin before one is waited for.
  std::map<Owner, Result> begun;
  for (auto &[owner, operations] : groups) begun[owner] = owner->enqueue(operations);
  Result result = SUCCESS;
  for (auto &[owner, own] : begun) {
    own = finish(owner, own);
    if (own != SUCCESS && (result == SUCCESS || result == IN_PROGRESS)) result = own;
  }
  return result;
}

static size_t bytesOfType(int type) {
  switch (type) {
  case 0: case 1: case 10: case 11: return 1; // int8, uint8, float8
  case 6: case 9: return 2;                   // float16, bfloat16
  case 4: case 5: case 8: return 8;           // int64, uint64, float64
  default: return 4;
  }
}

static int post(bool isSend, void *address, size_t count, int type, int peer, void *handle,
                void *stream) {
  const Owner owner = find(handle);
  if (!owner) return INVALID_ARGUMENT;
  const Result now = owner->usable();
  if (now != SUCCESS) return fail(now, owner->reason());
  if (peer < 0 || peer >= owner->ranks) return fail(INVALID_ARGUMENT, "peer out of range");
  ncclGroupStart();
  pending.push_back({owner, {isSend, address, count * bytesOfType(type), peer, stream}});
  return ncclGroupEnd();
}

API int ncclSend(const void *address, size_t count, int type, int peer, void *handle, void *stream) {
  return post(true, (void *)address, count, type, peer, handle, stream);
}

API int ncclRecv(void *address, size_t count, int type, int peer, void *handle, void *stream) {
  return post(false, address, count, type, peer, handle, stream);
}

/// `to` [ranks, count] = what all ranks send; `from` may be the rank's own part of it.
API int ncclAllGather(const void *from, void *to, size_t count, int type, void *handle, void *stream) {
  const Owner owner = find(handle);
  if (!owner) return INVALID_ARGUMENT;
  const Result now = owner->usable();
  if (now != SUCCESS) return fail(now, owner->reason());
  const size_t bytes = count * bytesOfType(type);
  ncclGroupStart();
  for (int peer = 0; peer < owner->ranks; peer++) {
    pending.push_back({owner, {true, (void *)from, bytes, peer, stream}});
    pending.push_back({owner, {false, (char *)to + peer * bytes, bytes, peer, stream}});
  }
  return ncclGroupEnd();
}

API int ncclCommFinalize(void *handle) {
  const Owner owner = find(handle);
  return owner ? finish(owner, owner->finalize()) : INVALID_ARGUMENT;
}

API int ncclCommDestroy(void *handle) {
  if (!handle) return SUCCESS;
  const Owner owner = find(handle, true);
  if (!owner) return INVALID_ARGUMENT;
  owner->destroy();
  return SUCCESS;
}

API int ncclCommAbort(void *handle) {
  if (!handle) return SUCCESS;
  const Owner owner = find(handle, true);
  if (!owner) return INVALID_ARGUMENT;
  owner->abort();
  return SUCCESS;
}

// ---- for tests; the real library has none of these

/// Tells the software device from a real library, as in its other libraries.
API const char *llumnixSoftwareDevice() { return "software NCCL 1 (not a GPU)"; }

/// Communicators, roots, threads, kernels, sockets, misuses, received bytes.
API void softNcclCounts(int64_t *out) {
  const std::atomic<int64_t> *const all[] = {
      &counts.communicators, &counts.roots,   &counts.threads,       &counts.kernels,
      &counts.sockets,       &counts.misuses, &counts.receivedBytes,
  };
  for (const auto *count : all) *out++ = count->load();
}

/// Sets a fault of faults.h; rank -1: for all ranks. 0, or 4 for a name or rank that does not exist.
API int softNcclFault(const char *name, int rank, int64_t value) {
  return setFault(name, rank, value) ? SUCCESS : INVALID_ARGUMENT;
}

/// All faults as the environment has them.
API void softNcclReset() { resetFaults(); }

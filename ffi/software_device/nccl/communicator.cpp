#include "communicator.h"
#include "device.h"
#include "faults.h"
#include <map>

namespace soft {

static const Flag NEVER{false};

static void *currentContext() {
  void *context = nullptr;
  return cuCtxGetCurrent(&context) == 0 ? context : nullptr;
}

/// Whether memory is on another device than the current one, whose kernels may not reach it.
static bool isElsewhere(const void *address) {
  int own = 0, its = 0;
  const int ordinal = 9; // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
  return cuCtxGetDevice(&own) == 0 && cuPointerGetAttribute(&its, ordinal, (uint64_t)address) == 0 && own != its;
}

Communicator::Communicator(int ranks, int rank, bool isBlocking)
    : ranks(ranks), rank(rank), isBlocking(isBlocking), context(currentContext()),
      links(ranks) {
  counts.communicators++;
}

Communicator::~Communicator() {
  if (job.joinable()) job.join();
}

Result Communicator::asyncError() const {
  return (Result)(late != SUCCESS ? late.load() : state.load());
}

Result Communicator::usable() {
  const Result now = asyncError();
  if (aborted || now == IN_PROGRESS) {
    counts.misuses++;
    std::lock_guard<std::mutex> hold(lock);
    why = "a call before the previous one has ended: ask ncclCommGetAsyncError until it is not 7";
    return INVALID_ARGUMENT;
  }
  return now;
}

std::string Communicator::reason() const {
  std::lock_guard<std::mutex> hold(lock);
  return why;
}

Result Communicator::start(std::function<void()> body) {
  if (job.joinable()) job.join(); // it has set its state, so it ends at once
  state = IN_PROGRESS;
  job = std::thread([body] {
    Counted thread(counts.threads);
    body();
  });
  return IN_PROGRESS;
}

Result Communicator::outcome() {
  if (job.joinable()) job.join();
  return asyncError();
}

void Communicator::settle(Result result, const std::string &text) {
  if (result != SUCCESS) {
    std::lock_guard<std::mutex> hold(lock);
    why = text;
  }
  state = result;
}

void Communicator::failLate(Result result, const std::string &text) {
  std::lock_guard<std::mutex> hold(lock);
  why = text;
  late = result;
}

// ---- init: through the root, then round the ring

Result Communicator::init(const UniqueId &id) {
  return start([this, id] { runInit(id); });
}

void Communicator::runInit(const UniqueId &id) {
  if (!nap(INIT_MS, rank, aborted)) return;
  int port = 0;
  listener = listenAnywhere(&port);
  if (!listener) return settle(SYSTEM_ERROR, "no port is left");
  std::vector<int> ports(ranks);
  const Io io = checkIn(id, rank, port, ports, aborted);
  if (io == Io::STOPPED) return;
  if (io == Io::GONE) return settle(REMOTE_ERROR, "the root of this id is gone, or refuses");
  for (int i = 0; i < ranks; i++) links[i].port = ports[i];
  if (joinRing()) settle(SUCCESS);
}

/// Connects to the next rank and lets the previous one connect: a rank that gave up is noticed here.
bool Communicator::joinRing() {
  if (ranks == 1) return true;
  ringNext = dial(links[(rank + 1) % ranks].port, rank, aborted);
  if (!ringNext) {
    if (!aborted) settle(REMOTE_ERROR, "the next rank is gone");
    return false;
  }
  const int64_t own = fault(DEVICE, rank);
  int64_t other = 0;
  Io io = ringNext.write(&own, sizeof own, aborted);
  ringPrevious = listener.accept(aborted);
  if (io == Io::FINE && ringPrevious) io = ringPrevious.read(&other, sizeof other, aborted);
  if (aborted) return false;
  if (io != Io::FINE || !ringPrevious) {
    settle(REMOTE_ERROR, "a rank of the ring is gone");
    return false;
  }
  if (own != 0 && own == other) {
    settle(INVALID_USAGE, "Duplicate GPU detected: two ranks on one CUDA device");
    return false;
  }
  return true;
}

// ---- groups of sends and receives

Result Communicator::enqueue(std::vector<Operation> operations) {
  const Result now = usable();
  if (now != SUCCESS) return now;
  const int number = ++groups;
  return start([this, operations, number] { runGroup(operations, number); });
}

void Communicator::runGroup(const std::vector<Operation> &operations, int number) {
  std::map<void *, std::vector<Operation>> byStream;
  for (const Operation &operation : operations) {
    byStream[operation.stream].push_back(operation);
    if (operation.peer == rank || connect(operation.peer)) continue;
    if (!aborted) settle(REMOTE_ERROR, "cannot connect to the peer");
    return;
  }
  if (!nap(GROUP_MS, rank, aborted)) return;
  cuCtxSetCurrent(context);
  for (const Operation &operation : operations) {
    if (isElsewhere(operation.address)) return settle(CUDA_ERROR, "memory of another device");
  }
  for (auto &[stream, own] : byStream) {
    if (launchKernel(shared_from_this(), stream, own, number)) continue;
    return settle(CUDA_ERROR, "the device refuses the kernel: no such stream, or the device has failed");
  }
  settle(SUCCESS);
}

/// The first operation with a peer connects, and that needs the peer to post one, too. The lower rank
/// dials once a direction, the other one accepts.
bool Communicator::connect(int peer) {
  Link &link = links[peer];
  if (link.out && link.in) return true;
  if (!nap(CONNECT_MS, rank, aborted)) return false;
  struct {
    int rank, isForDialer;
  } hello{rank, 0};
  int answer = 1;
  if (rank < peer) {
    for (const bool isForDialer : {true, false}) {
      hello.isForDialer = isForDialer;
      Socket connection = dial(link.port, rank, aborted);
      if (!connection || connection.write(&hello, sizeof hello, aborted) != Io::FINE) return false;
      if (connection.read(&answer, sizeof answer, aborted) != Io::FINE) return false;
      (isForDialer ? link.out : link.in) = std::move(connection);
    }
    return true;
  }
  while (!link.out || !link.in) { // another lower rank may come first
    Socket connection = listener.accept(aborted);
    if (!connection || connection.read(&hello, sizeof hello, aborted) != Io::FINE) return false;
    if (connection.write(&answer, sizeof answer, aborted) != Io::FINE) return false;
    Link &from = links[hello.rank];
    (hello.isForDialer ? from.in : from.out) = std::move(connection);
  }
  return true;
}

// ---- the end

Result Communicator::finalize() {
  const Result now = usable();
  if (now != SUCCESS) return now;
  if (isFinalized) {
    counts.misuses++;
    return INVALID_USAGE;
  }
  isFinalized = true;
  return start([this] { runFinalize(); });
}

/// Collective: ends once the kernels have, and the other ranks come, too.
void Communicator::runFinalize() {
  while (enqueuedKernels > 0) {
    if (!nap(1, aborted)) return;
  }
  char token = 'F';
  if (ringNext) ringNext.write(&token, 1, aborted);
  if (ringPrevious && ringPrevious.read(&token, 1, aborted) == Io::STOPPED) return;
  settle(SUCCESS);
}

void Communicator::destroy() {
  if (!isFinalized && asyncError() == SUCCESS) finalize();
  while (state == IN_PROGRESS) nap(1, NEVER); // for ever if a kernel does not end
  release();
}

void Communicator::abort() {
  const long peerMs = fault(ABORT_WAITS_PEER, rank);
  if (peerMs > 0 && ringNext && ringPrevious) {
    ringNext.breakOff();
    ringPrevious.waitForEnd(peerMs);
  }
  nap(ABORT_MS, rank, NEVER);
  release();
}

void Communicator::release() {
  {
    std::lock_guard<std::mutex> hold(lock);
    aborted = true; // from here on no kernel begins
  }
  while (runningKernels > 0) nap(1, NEVER);
  while (fault(ABORT_WAITS_DEVICE, rank) && kernelsOnDevice > 0) nap(1, NEVER);
  if (job.joinable()) job.join();
  for (Link &link : links) {
    link.out.close();
    link.in.close();
  }
  ringNext.close();
  ringPrevious.close();
  listener.close();
  counts.communicators--; // kernels that never began may still lie in a stream
}

} // namespace soft

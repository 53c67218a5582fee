#include "streams.h"

#include <algorithm>
#include <cstdio>
#include <thread>

namespace soft {

using std::chrono::microseconds;
using std::chrono::milliseconds;

/// In late order, one query in so many runs a piece of the work it asks for: a loop that polls ends,
/// and a program that takes the first answer for the last one is noticed.
constexpr uint64_t queryPatience = 3;
/// How long a waiting call sleeps between two looks at what happens outside the process.
constexpr microseconds blockedNap(200);

Engine& Engine::get() {
  static Engine& one = *new Engine;  // never destroyed: threads may use it until the process ends
  return one;
}

StreamRef Engine::addStream(int device, unsigned flags, int priority) {
  auto stream = std::make_shared<Stream>();
  stream->device = device;
  stream->flags = flags;
  stream->priority = priority;
  streams_.push_back(stream);
  return stream;
}

StreamRef Engine::legacyStream(int device) {
  if (legacy_[device] == nullptr) {
    legacy_[device] = addStream(device, 0, 0);
    legacy_[device]->legacy = true;
  }
  return legacy_[device];
}

void Engine::removeStream(const StreamRef& stream) {
  if (stream->queue.empty()) std::erase(streams_, stream);
  // Else the stream goes with its last piece of work.
  stream->flags |= 0x80000000u;
}

WorkRef Engine::tail(const StreamRef& stream) {
  return stream->queue.empty() ? nullptr : stream->queue.back();
}

WorkRef Engine::submit(Lock& lock, const StreamRef& stream, const char* what, Body body,
                       std::vector<WorkRef> after, bool countable) {
  auto work = std::make_shared<Work>();
  work->what = what;
  work->body = countable ? withFaults(stream->device, what, std::move(body)) : std::move(body);
  work->stream = stream;
  work->after = std::move(after);
  work->submitted = Clock::now();
  if (stream->legacy) {
    for (auto& other : streams_) {
      const bool blocking = !(other->flags & 1) && other->device == stream->device;
      if (blocking && other != stream && !other->queue.empty()) work->after.push_back(tail(other));
    }
  } else if (!(stream->flags & 1)) {
    const StreamRef& legacy = legacy_[stream->device];
    if (legacy != nullptr && !legacy->queue.empty()) work->after.push_back(tail(legacy));
  }
  std::erase_if(work->after, [](const WorkRef& one) { return one == nullptr || one->done; });
  stream->queue.push_back(work);
  startBackground();
  if (settings().order == Order::Eager) {
    while (!work->done && advance(lock, work)) {
    }
  }
  return work;
}

Body Engine::withFaults(int device, const char* what, Body body) {
  Settings& now = settings();
  if (now.hangWork > 0 && --now.hangWork == 0 && takesFault()) {
    return [] { return Step::Blocked; };
  }
  if (now.failWork > 0 && --now.failWork == 0 && takesFault()) {
    return [this, device, what] {
      Lock lock(mutex);
      fail(device, Status(settings().failCode), std::string("fail-work is set for this ") + what);
      return Step::Done;
    };
  }
  return body;
}

bool Engine::allocationFails(uint64_t bytes) {
  Settings& now = settings();
  if (now.failAllocation > 0 && --now.failAllocation == 0) return true;
  return now.failAllocationAbove > 0 && bytes > now.failAllocationAbove;
}

/// The work that has to run next for `work` to complete: the head of its stream, or of a stream that
/// this head waits for.
WorkRef Engine::needed(WorkRef work) const {
  for (;;) {
    const WorkRef& head = work->stream->queue.front();
    const auto open = std::find_if(head->after.begin(), head->after.end(),
                                   [](const WorkRef& one) { return !one->done; });
    if (open == head->after.end()) return head;
    work = *open;
  }
}

/// Runs one piece of what `work`, which is not done, needs. False if that is blocked, or is run by
/// another thread.
bool Engine::advance(Lock& lock, const WorkRef& work) {
  const WorkRef next = needed(work);
  return !next->running && runPiece(lock, next);
}

/// If what `work` needs waits for its peers, runs a piece of what each stream needs to come to such a peer: devices
/// get on at the same time. False if nothing could be run.
bool Engine::advancePeers(Lock& lock, const WorkRef& work) {
  if (!needed(work)->hasPeers) return false;
  bool ran = false;
  const std::vector<StreamRef> streams = streams_;
  for (auto& stream : streams) {
    const auto peer = std::find_if(stream->queue.begin(), stream->queue.end(),
                                   [](const WorkRef& one) { return one->hasPeers; });
    if (peer != stream->queue.end() && advance(lock, WorkRef(*peer))) ran = true;
  }
  return ran;
}

bool Engine::runPiece(Lock& lock, const WorkRef& head) {
  head->running = true;
  lock.unlock();
  const Step step = head->body();
  lock.lock();
  head->running = false;
  if (head->done) return true;  // dropped meanwhile
  if (step == Step::Done) complete(head);
  if (step != Step::Blocked) changed_.notify_all();
  return step != Step::Blocked;
}

void Engine::complete(const WorkRef& work) {
  const StreamRef stream = work->stream;
  work->done = true;
  work->completed = Clock::now();
  work->body = nullptr;
  work->after.clear();
  stream->queue.pop_front();
  const bool destroyed = stream->flags & 0x80000000u;
  if (destroyed && stream->queue.empty()) std::erase(streams_, stream);
}

void Engine::await(Lock& lock, const WorkRef& work) {
  while (!work->done) {
    if (advance(lock, work) || work->done || advancePeers(lock, work)) continue;
    changed_.wait_for(lock, blockedNap);
  }
}

bool Engine::poll(Lock& lock, const WorkRef& work) {
  if (work->done) return true;
  const Order order = settings().order;
  if (order == Order::Random) {
    chance(lock);
  } else if (order == Order::Eager || ++queries_ % queryPatience == 0) {
    advance(lock, work);
  }
  return work->done;
}

void Engine::awaitDevice(Lock& lock, int device) {
  std::vector<WorkRef> open;
  for (auto& stream : streams_) {
    if (stream->device == device && !stream->queue.empty()) open.push_back(tail(stream));
  }
  // The newest stream first: work of older streams that it should have waited for is still undone.
  for (auto work = open.rbegin(); work != open.rend(); ++work) await(lock, *work);
}

void Engine::chance(Lock& lock) {
  if (settings().order != Order::Random || choose(4) != 0) return;
  for (uint64_t pieces = 1 + choose(3); pieces > 0; pieces--) {
    std::vector<WorkRef> ready;
    for (auto& stream : streams_) {
      if (stream->queue.empty()) continue;
      const WorkRef& head = stream->queue.front();
      if (!head->running && needed(head) == head) ready.push_back(head);
    }
    if (ready.empty()) return;
    runPiece(lock, ready[choose(ready.size())]);
  }
}

void Engine::drop(const StreamRef& stream) {
  for (auto& work : stream->queue) {
    work->done = true;
    work->completed = Clock::now();
    work->after.clear();
  }
  stream->queue.clear();
}

void Engine::fail(int device, Status status, const std::string& reason) {
  if (faults_[device] != Ok) return;
  std::fprintf(stderr, "llumnix software device %d: error %d from now on: %s\n", device, int(status),
               reason.c_str());
  faults_[device] = status;
  for (auto& stream : streams_) {
    if (stream->device == device) drop(stream);
  }
  changed_.notify_all();
}

size_t Engine::unfinished() const {
  size_t count = 0;
  for (auto& stream : streams_) count += stream->queue.size();
  return count;
}

void Engine::reset(Lock&) {
  for (auto& stream : streams_) drop(stream);
  streams_.clear();
  for (auto& legacy : legacy_) legacy = nullptr;
  for (auto& fault : faults_) fault = Ok;
  queries_ = 0;
  restartOrder();
  changed_.notify_all();
}

void Engine::startBackground() {
  if (background_) return;
  background_ = true;
  std::thread([this] { runBackground(); }).detach();
}

/// Real devices get on without being asked. Work that nobody asked for runs here once it is overdue,
/// and so does work that was blocked by something outside the process.
void Engine::runBackground() {
  Lock lock(mutex);
  for (;;) {
    const bool ran = settings().progressMs > 0 && runOverdue(lock);
    if (!ran) changed_.wait_for(lock, milliseconds(unfinished() > 0 ? 2 : 20));
  }
}

bool Engine::runOverdue(Lock& lock) {
  const auto age = milliseconds(settings().order == Order::Eager ? 0 : settings().progressMs);
  const auto limit = Clock::now() - age;
  bool ran = false;
  const std::vector<StreamRef> streams = streams_;
  for (auto& stream : streams) {
    while (!stream->queue.empty() && stream->queue.front()->submitted <= limit) {
      if (!advance(lock, stream->queue.front())) break;
      ran = true;
    }
  }
  return ran;
}

}  // namespace soft

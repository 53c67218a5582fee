#include "device.h"

#include <algorithm>

namespace soft {
namespace {
thread_local int current = -1;
}

int currentDevice() { return current; }
void setCurrentDevice(int device) { current = device; }

Driver& Driver::get() {
  static Driver& one = *new Driver;
  return one;
}

Call::Call(Needs needs) : lock(engine.mutex) {
  if (!driver.initialized) {
    status = NotInitialized;
    return;
  }
  if (needs == Initialized) return;
  device = current;
  if (device < 0 || driver.contexts[device].retained == 0) {
    status = InvalidContext;
    return;
  }
  engine.chance(lock);
  status = engine.fault(device);
  if (status != Ok || needs == CaptureSafe) return;
  for (auto& capture : driver.captures) {
    const bool mine = capture->thread == std::this_thread::get_id();
    if (capture->mode == 2 || (capture->mode == 1 && !mine)) continue;
    capture->invalid = true;
    status = CaptureUnsupported;
  }
}

StreamRef Call::stream(uint64_t handle) {
  return handle <= 1 ? engine.legacyStream(device) : driver.streams.find(handle);
}

Status Call::submit(const StreamRef& stream, const char* what, Maker make, bool countable,
                    WorkRef* submitted) {
  if (stream == nullptr) return InvalidHandle;
  if (const auto capture = stream->capture) {
    if (capture->invalid) return CaptureInvalidated;
    capture->add(stream, what, std::move(make), countable);
    return Ok;
  }
  if (stream->legacy) {
    for (auto& capture : driver.captures) {
      if (capture->origin->flags & 1) continue;
      capture->invalid = true;
      return CaptureImplicit;
    }
  }
  const WorkRef work = engine.submit(lock, stream, what, make(), {}, countable);
  if (submitted != nullptr) *submitted = work;
  return outcome();
}

}  // namespace soft

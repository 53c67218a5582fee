// cu* functions: streams, events and events shared between processes.
#include <algorithm>

#include "device.h"
#include "stream_work.h"

using namespace soft;

namespace {

enum EventFlags : unsigned { blockingSync = 1, noTiming = 2, interprocess = 4 };

/// Whether the event's latest record is complete, in this process or another one.
bool completed(Call& call, const Event& event) {
  if (event.last != nullptr && !call.engine.poll(call.lock, event.last)) return false;
  if (event.shared == nullptr) return true;
  return event.shared->header->done >= event.shared->header->recorded;
}

/// Work that is done once the other process has got as far as `record`.
Maker untilDone(std::shared_ptr<SharedFile> shared, uint64_t record) {
  return [shared, record]() -> Body {
    return [shared, record] { return shared->header->done >= record ? Step::Done : Step::Blocked; };
  };
}

Status recordInto(Call& call, const EventRef& event, const StreamRef& stream) {
  event->capture = stream->capture;
  if (event->capture != nullptr) {
    event->nodes = stream->frontier;
    event->last = nullptr;
    return event->capture->invalid ? CaptureInvalidated : Ok;
  }
  const auto shared = event->shared;
  const uint64_t record = shared == nullptr ? 0 : ++shared->header->recorded;
  auto make = [shared, record]() -> Body {
    return [shared, record] {
      // Records of one event in several streams may complete out of order.
      for (uint64_t done = shared ? shared->header->done.load() : record; done < record;) {
        if (shared->header->done.compare_exchange_weak(done, record)) break;
      }
      return Step::Done;
    };
  };
  return call.submit(stream, "event record", make, false, &event->last);
}

/// A wait inside a capture is an edge of its graph; it makes the stream part of the capture.
Status waitForNodes(const StreamRef& stream, const Event& event) {
  const auto capture = event.capture;
  if (capture->finished) return CapturedEvent;
  if (stream->legacy) return CaptureImplicit;
  if (stream->capture != nullptr && stream->capture != capture) return CaptureIsolation;
  if (stream->capture == nullptr) {
    capture->join(stream);
    stream->capture = capture;
  }
  stream->frontier.insert(stream->frontier.end(), event.nodes.begin(), event.nodes.end());
  return Ok;
}

Status waitFor(Call& call, const StreamRef& stream, const EventRef& event) {
  if (event->capture != nullptr) return waitForNodes(stream, *event);
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return CaptureIsolation;  // a graph cannot wait for work outside it
  }
  if (event->shared != nullptr) {
    const uint64_t record = event->shared->header->recorded;
    return call.submit(stream, "wait for another process's event", untilDone(event->shared, record),
                       false);
  }
  if (event->last == nullptr || event->last->done) return Ok;
  const auto nothing = [] { return Step::Done; };
  call.engine.submit(call.lock, stream, "wait for an event", nothing, {event->last}, false);
  return call.outcome();
}

}  // namespace

CUDA_API cuStreamCreateWithPriority(uint64_t* stream, unsigned flags, int priority) {
  Call call;
  if (call.refused()) return call.status;
  if (stream == nullptr || flags > 1) return InvalidValue;
  const int clamped = std::max(greatestPriority, std::min(leastPriority, priority));
  *stream = call.driver.streams.add(call.engine.addStream(call.device, flags, clamped));
  return Ok;
}
CUDA_API cuStreamCreate(uint64_t* stream, unsigned flags) {
  return cuStreamCreateWithPriority(stream, flags, 0);
}

/// Returns at once; work that the stream still holds runs all the same.
CUDA_API cuStreamDestroy_v2(uint64_t handle) {
  Call call;
  if (call.refused()) return call.status;
  const StreamRef stream = call.driver.streams.remove(handle);
  if (stream == nullptr) return InvalidHandle;
  call.engine.removeStream(stream);
  return Ok;
}

CUDA_API cuStreamGetPriority(uint64_t handle, int* priority) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  *priority = stream->priority;
  return Ok;
}

CUDA_API cuStreamGetFlags(uint64_t handle, unsigned* flags) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  *flags = stream->flags & 1;
  return Ok;
}

CUDA_API cuStreamSynchronize(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return CaptureUnsupported;
  }
  if (stream->legacy) {
    // Blocking streams count as part of what the legacy stream does.
    WorkRef all;
    const auto make = []() -> Body { return [] { return Step::Done; }; };
    const Status submitted = call.submit(stream, "synchronize", make, false, &all);
    if (submitted != Ok) return submitted;
  }
  if (const WorkRef last = Engine::tail(stream)) call.engine.await(call.lock, last);
  return call.outcome();
}

CUDA_API cuStreamQuery(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr) return InvalidHandle;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return CaptureUnsupported;
  }
  const WorkRef last = Engine::tail(stream);
  const bool done = last == nullptr || call.engine.poll(call.lock, last);
  if (call.outcome() != Ok) return call.outcome();
  return done ? Ok : NotReady;
}

CUDA_API cuStreamWaitEvent(uint64_t handle, uint64_t eventHandle, unsigned flags) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  const EventRef event = call.driver.events.find(eventHandle);
  if (stream == nullptr || event == nullptr) return InvalidHandle;
  return flags > 1 ? InvalidValue : waitFor(call, stream, event);
}

CUDA_API cuLaunchHostFunc(uint64_t handle, void (*function)(void*), void* data) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (function == nullptr) return InvalidValue;
  const auto make = [function, data]() -> Body {
    return [function, data] {
      function(data);
      return Step::Done;
    };
  };
  return call.submit(call.stream(handle), "host function", make, false);
}

CUDA_API cuStreamAddCallback(uint64_t handle, void (*function)(uint64_t, int, void*), void* data,
                             unsigned flags) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (function == nullptr || flags != 0) return InvalidValue;
  const auto make = [handle, function, data]() -> Body {
    return [handle, function, data] {
      function(handle, Ok, data);
      return Step::Done;
    };
  };
  return call.submit(call.stream(handle), "callback", make, false);
}

CUDA_API llumnixSoftwareDeviceEnqueue(uint64_t handle, const char* what, int (*step)(void*),
                                      void* context) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const auto make = [step, context]() -> Body {
    return [step, context] { return step(context) == 0 ? Step::Done : Step::Blocked; };
  };
  const StreamRef stream = call.stream(handle);
  if (stream == nullptr || stream->device != call.device) return InvalidHandle;
  WorkRef submitted;
  const Status status = call.submit(stream, what, make, true, &submitted);
  if (submitted != nullptr) submitted->hasPeers = true;
  return status;
}

CUDA_API cuEventCreate(uint64_t* event, unsigned flags) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (event == nullptr || flags > 7) return InvalidValue;
  if ((flags & interprocess) && !(flags & noTiming)) return InvalidValue;
  auto made = std::make_shared<Event>();
  made->device = call.device;
  made->flags = flags;
  *event = call.driver.events.add(made);
  return Ok;
}

CUDA_API cuEventDestroy_v2(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  return call.driver.events.remove(handle) == nullptr ? InvalidHandle : Ok;
}

CUDA_API cuEventRecord(uint64_t eventHandle, uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const StreamRef stream = call.stream(handle);
  const EventRef event = call.driver.events.find(eventHandle);
  if (stream == nullptr || event == nullptr || stream->device != event->device) return InvalidHandle;
  return recordInto(call, event, stream);
}

CUDA_API cuEventQuery(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const EventRef event = call.driver.events.find(handle);
  if (event == nullptr) return InvalidHandle;
  if (event->capture != nullptr) return CapturedEvent;
  const bool done = completed(call, *event);
  if (call.outcome() != Ok) return call.outcome();
  return done ? Ok : NotReady;
}

CUDA_API cuEventSynchronize(uint64_t handle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const EventRef event = call.driver.events.find(handle);
  if (event == nullptr) return InvalidHandle;
  if (event->capture != nullptr) return CapturedEvent;
  if (event->last != nullptr) call.engine.await(call.lock, event->last);
  if (event->shared != nullptr) {
    const StreamRef own = call.engine.addStream(call.device, 1, 0);
    const Maker make = untilDone(event->shared, event->shared->header->recorded);
    call.engine.await(call.lock, call.engine.submit(call.lock, own, "wait", make(), {}, false));
    call.engine.removeStream(own);
  }
  return call.outcome();
}

CUDA_API cuEventElapsedTime_v2(float* milliseconds, uint64_t firstHandle, uint64_t secondHandle) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const EventRef first = call.driver.events.find(firstHandle),
                 second = call.driver.events.find(secondHandle);
  if (first == nullptr || second == nullptr) return InvalidHandle;
  if ((first->flags | second->flags) & noTiming) return InvalidHandle;
  if (first->last == nullptr || second->last == nullptr) return InvalidHandle;
  if (!first->last->done || !second->last->done) return NotReady;
  *milliseconds =
      std::chrono::duration<float, std::milli>(second->last->completed - first->last->completed).count();
  return Ok;
}
CUDA_API cuEventElapsedTime(float* milliseconds, uint64_t first, uint64_t second) {
  return cuEventElapsedTime_v2(milliseconds, first, second);
}

CUDA_API cuIpcGetEventHandle(SharedName* handle, uint64_t eventHandle) {
  Call call;
  if (call.refused()) return call.status;
  const EventRef event = call.driver.events.find(eventHandle);
  if (event == nullptr) return InvalidHandle;
  if (!(event->flags & interprocess)) return InvalidValue;
  if (event->shared == nullptr) {
    event->shared = SharedFile::create(0);
    if (event->shared == nullptr) return OutOfMemory;
    // A record that is under way is the file's first one.
    if (event->last != nullptr && !event->last->done) call.engine.await(call.lock, event->last);
  }
  *handle = event->shared->name;
  handle->device = event->device;
  return Ok;
}

CUDA_API cuIpcOpenEventHandle(uint64_t* event, SharedName handle) {
  Call call;
  if (call.refused()) return call.status;
  if (event == nullptr || handle.bytes != 0) return InvalidValue;
  Status status = Ok;
  auto opened = std::make_shared<Event>();
  opened->shared = SharedFile::open(handle, status);
  if (opened->shared == nullptr) return status;
  opened->device = call.device;
  opened->flags = interprocess | noTiming;
  *event = call.driver.events.add(opened);
  return Ok;
}

// How the software NCCL puts its kernels into a stream of the software CUDA device. The device's
// library exports `softEnqueue`; this is the whole contract between the two libraries.
#pragma once

namespace soft {

/// cudaErrorNotReady: the work goes on; the device asks again.
constexpr int NOT_READY = 600;

/// One piece of stream work. The device calls it once all earlier work of the stream has ended, and
/// again about every millisecond while it returns NOT_READY, whether or not the host queries the
/// stream: a kernel runs on its own. 0 ends it; any other value is an error of the stream. The device
/// may call from any thread, but never twice at once. The function returns within microseconds.
typedef int (*StreamWork)(void *argument);

/// Appends work to a stream. Safe on every thread. Returns 0 or a CUDA error.
typedef int (*SoftEnqueue)(void *stream, StreamWork work, void *argument);

/// The device's `softEnqueue`: of a library that is loaded already, or of the software device that
/// lies in this library's folder. Null if there is none.
SoftEnqueue findSoftEnqueue();

} // namespace soft

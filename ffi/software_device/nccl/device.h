// The software CUDA device, which is another library: what the kernels here need of it.
#pragma once
#include <cstdint>

namespace soft {

/// The functions of the device's library; see `../stream_work.h` for `enqueue`.
struct DeviceLibrary {
  int (*enqueue)(uint64_t stream, const char *what, int (*step)(void *), void *context) = nullptr;
  int (*getContext)(void **context) = nullptr;
  int (*setContext)(void *context) = nullptr;
};

/// Of a library that is loaded already, or that lies in this library's folder. `enqueue` is null if
/// there is none.
const DeviceLibrary &deviceLibrary();

/// The CUDA context of the calling thread.
void *currentContext();
/// Makes a context the calling thread's: the device refuses work from a thread without one.
void useContext(void *context);

} // namespace soft

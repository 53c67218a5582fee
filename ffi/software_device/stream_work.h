// For libraries that put work of their own into a stream of the software device (its libnccl).
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Puts an operation into a stream (a cudaStream_t or CUstream; the calling thread has a context).
/// When all work before it is done, `step(context)` is called, by any thread that waits for the stream
/// and without a lock, until it returns 0 (done); anything else means "not yet", and it is called again
/// within about a millisecond while a thread waits for it or for another stream's operation of this kind, else
/// with every third query of the host, else after the setting `progress`. It must not block, nor call a cu* or
/// cuda* function. After a device fault it is not called any more. Returns a CUresult.
int llumnixSoftwareDeviceEnqueue(uint64_t stream, const char* what, int (*step)(void*), void* context);

#ifdef __cplusplus
}
#endif

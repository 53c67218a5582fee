// The software CUDA device, in the library that this one needs.
#pragma once
#include "../stream_work.h"

// libcuda's names: the device refuses work from a thread without a context, and NCCL's own threads have
// none until it gives them that of the communicator.
extern "C" int cuCtxGetCurrent(void **context);
extern "C" int cuCtxSetCurrent(void *context);
extern "C" int cuDevicePrimaryCtxRetain(void **context, int device);
extern "C" int cuCtxGetDevice(int *device);
extern "C" int cuPointerGetAttribute(void *out, int which, uint64_t address);

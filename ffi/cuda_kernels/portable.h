// The kernels are CUDA C++. On machines without a GPU g++ compiles the same source against an emulation
// of CUDA's names (ffi/software_device/kernels/cuda_emulation.h).
#pragma once
#ifdef __CUDACC__
#include <cuda_pipeline_primitives.h>
#include <stdint.h>
/// Dynamic shared memory of the block as an array of `type`.
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
/// A function of a class.
#define DEVICE_MEMBER __device__ __forceinline__
#else
#include "cuda_emulation.h"
#define DEVICE_MEMBER __attribute__((always_inline)) inline
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulated_dynamic_shared())
#endif

// Between the driver of the software device and a library of kernels compiled for the CPU.
#pragma once
#include <cstdint>

struct KernelParameter {
  uint64_t offset, bytes;
};

struct KernelInfo {
  const char* name;
  const KernelParameter* parameters;
  uint64_t parameterCount, parameterBytes;
  void (*run)(const unsigned char* parameters);  ///< One thread of it.
};

struct LaunchShape {
  unsigned grid[3], block[3];
  unsigned dynamicBytes;
  unsigned programmatic;  ///< 1: it may begin before the kernel launched before it has ended.
  uint64_t seed;          ///< Of the order of blocks and threads; 0: by their numbers.
};

struct KernelLaunch;

extern "C" {
/// A kernel of the library, or null.
const KernelInfo* llumnixKernel(const char* name);
/// Parameters are copied. `llumnixLaunchEnd` frees what this makes.
KernelLaunch* llumnixLaunchBegin(const KernelInfo* kernel, const LaunchShape* shape,
                                 const void* parameters);
/// Runs some blocks. 0: all are done; 1: more are left. Else `complaint` says what ended the kernel:
/// 2: an access to memory that is not there; 3: anything else.
int llumnixLaunchStep(KernelLaunch* launch, char* complaint, uint64_t complaintBytes);
void llumnixLaunchEnd(KernelLaunch* launch);
}

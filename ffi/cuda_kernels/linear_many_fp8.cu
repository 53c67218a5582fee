// The kernels of linear_many.cu for weights of 8 bits.
#define TEMPLATES_ONLY
#include "linear_many.cu"

extern "C" __global__ void __launch_bounds__(256, 2)
    linear_many_bf16_w8_64(const bf16* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                          const float* __restrict__ bias, float* y, int rows, int outputs, int inputs, int adds) {
  linearMany<bf16, 64>(x, w, scales, bias, y, rows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    linear_many_f16_w8_64(const f16* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                          const float* __restrict__ bias, float* y, int rows, int outputs, int inputs, int adds) {
  linearMany<f16, 64>(x, w, scales, bias, y, rows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256, 1)
    linear_many_bf16_w8_128(const bf16* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                          const float* __restrict__ bias, float* y, int rows, int outputs, int inputs, int adds) {
  linearMany<bf16, 128>(x, w, scales, bias, y, rows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256, 1)
    linear_many_f16_w8_128(const f16* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                          const float* __restrict__ bias, float* y, int rows, int outputs, int inputs, int adds) {
  linearMany<f16, 128>(x, w, scales, bias, y, rows, outputs, inputs, adds);
}

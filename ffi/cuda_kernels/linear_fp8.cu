// The kernels of linear.cu for weights of 8 bits.
#define TEMPLATES_ONLY
#include "linear.cu"

extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_w8_1(const e4m3* __restrict__ w, const float* __restrict__ scales, const bf16* __restrict__ x,
                     const float* __restrict__ bias, float* __restrict__ y, int allRows, int outputs, int inputs,
                     int adds) {
  linear<bf16, 1>(w, scales, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_w8_4(const e4m3* __restrict__ w, const float* __restrict__ scales, const bf16* __restrict__ x,
                     const float* __restrict__ bias, float* __restrict__ y, int allRows, int outputs, int inputs,
                     int adds) {
  linear<bf16, 4>(w, scales, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_w8_8(const e4m3* __restrict__ w, const float* __restrict__ scales, const bf16* __restrict__ x,
                     const float* __restrict__ bias, float* __restrict__ y, int allRows, int outputs, int inputs,
                     int adds) {
  linear<bf16, 8>(w, scales, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f16_w8_1(const e4m3* __restrict__ w, const float* __restrict__ scales, const f16* __restrict__ x,
                     const float* __restrict__ bias, float* __restrict__ y, int allRows, int outputs, int inputs,
                     int adds) {
  linear<f16, 1>(w, scales, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f16_w8_4(const e4m3* __restrict__ w, const float* __restrict__ scales, const f16* __restrict__ x,
                     const float* __restrict__ bias, float* __restrict__ y, int allRows, int outputs, int inputs,
                     int adds) {
  linear<f16, 4>(w, scales, x, bias, y, allRows, outputs, inputs, adds);
}
extern "C" __global__ void __launch_bounds__(256)
    linear_f16_w8_8(const e4m3* __restrict__ w, const float* __restrict__ scales, const f16* __restrict__ x,
                     const float* __restrict__ bias, float* __restrict__ y, int allRows, int outputs, int inputs,
                     int adds) {
  linear<f16, 8>(w, scales, x, bias, y, allRows, outputs, inputs, adds);
}

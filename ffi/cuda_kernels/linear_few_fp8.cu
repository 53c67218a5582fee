// The kernels of linear_few.cu for weights of 8 bits.
#define TEMPLATES_ONLY
#include "linear_few.cu"

extern "C" __global__ void __launch_bounds__(256, 2)
    norm_linear_bf16_w8(const float* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                       const float* __restrict__ norm, const float* __restrict__ bias, float* y, const int* indices,
                       int rows, int outputs, int inputs, float epsilon, int depth) {
  linearFew<bf16, From::Norm, To::Store>(x, w, scales, norm, bias, y, indices, rows, outputs, inputs, epsilon, depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    norm_gate_up_bf16_w8(const float* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                        const float* __restrict__ norm, bf16* y, int rows, int outputs, int inputs, float epsilon,
                        int depth) {
  linearFew<bf16, From::Norm, To::Silu>(x, w, scales, norm, nullptr, y, nullptr, rows, outputs, inputs, epsilon,
                                       depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    linear_add_bf16_w8(const bf16* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                      const float* __restrict__ bias, float* y, int rows, int outputs, int inputs, int depth) {
  linearFew<bf16, From::Memory, To::Add>(x, w, scales, nullptr, bias, y, nullptr, rows, outputs, inputs, 0, depth);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    norm_linear_f16_w8(const float* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                       const float* __restrict__ norm, const float* __restrict__ bias, float* y, const int* indices,
                       int rows, int outputs, int inputs, float epsilon, int depth) {
  linearFew<f16, From::Norm, To::Store>(x, w, scales, norm, bias, y, indices, rows, outputs, inputs, epsilon, depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    norm_gate_up_f16_w8(const float* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                        const float* __restrict__ norm, f16* y, int rows, int outputs, int inputs, float epsilon,
                        int depth) {
  linearFew<f16, From::Norm, To::Silu>(x, w, scales, norm, nullptr, y, nullptr, rows, outputs, inputs, epsilon,
                                       depth);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    linear_add_f16_w8(const f16* x, const e4m3* __restrict__ w, const float* __restrict__ scales,
                      const float* __restrict__ bias, float* y, int rows, int outputs, int inputs, int depth) {
  linearFew<f16, From::Memory, To::Add>(x, w, scales, nullptr, bias, y, nullptr, rows, outputs, inputs, 0, depth);
}

// How kernels are launched: on the current stream of the tensors' device, one index at a time of a 64-bit
// range.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

namespace atss_ext {

constexpr int kThreadsOfPriors = 128;
// A batch has few gts: small blocks spread them over the device.
constexpr int kThreadsOfGts = 32;
// Enough blocks to fill any device; larger ranges are walked in strides.
constexpr int64_t kMaxBlocks = 1 << 16;

inline unsigned int blocks_for(int64_t items, int threads) {
  return static_cast<unsigned int>(std::min((items + threads - 1) / threads, kMaxBlocks));
}

// Runs body(i) for every i in [0, count).
template <int kThreads, typename Body>
__global__ void __launch_bounds__(kThreads)
    for_each_kernel(int64_t count, const __grid_constant__ Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    body(i);
  }
}

template <int kThreads = kThreadsOfPriors, typename Body>
void for_each(int64_t count, const Body& body) {
  if (count == 0) return;
  for_each_kernel<kThreads>
      <<<blocks_for(count, kThreads), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(count, body);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace atss_ext

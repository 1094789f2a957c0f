// What lets one header be compiled for the host and for the device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__) || defined(__HIPCC__)
#define ATSS_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define ATSS_HD inline __attribute__((always_inline))
#else
#define ATSS_HD inline
#endif

// Compiles a loop for wider vectors too and picks at load time. Contraction is off for all of them, so the
// results are the same bits. Sanitizers start too late for the resolver and do without.
#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__) && !defined(__CUDACC__) && \
    !defined(ATSS_EXT_NO_CLONES)
#define ATSS_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ATSS_VECTOR_CLONES
#endif

namespace atss_ext {

// Comparisons instead of std::min/max: they compile for the device and say what happens to NaN.
template <typename T>
ATSS_HD T smaller(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
ATSS_HD T larger(T a, T b) {
  return a < b ? b : a;
}

}  // namespace atss_ext

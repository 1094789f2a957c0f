// Box arithmetic, compiled for host and device: the one place where IoU is defined.
// Operation by operation as mmdet's bbox_overlaps, so that thresholds fall alike.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define ATSS_HD __host__ __device__ __forceinline__
#else
#define ATSS_HD inline
#endif

namespace atss_ext {

// Keeps 0/0 out of the IoU of zero-area boxes.
constexpr double kIouEps = 1e-6;

template <typename T>
struct Box {
  T x1, y1, x2, y2;
};

// Comparisons instead of std::min/max: the same code compiles for the device.
template <typename T>
ATSS_HD T smaller(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
ATSS_HD T larger(T a, T b) {
  return a < b ? b : a;
}

template <typename T>
ATSS_HD T box_area(const Box<T>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

template <typename T>
ATSS_HD T box_iou(const Box<T>& a, const Box<T>& b) {
  const T width = larger(smaller(a.x2, b.x2) - larger(a.x1, b.x1), T(0));
  const T height = larger(smaller(a.y2, b.y2) - larger(a.y1, b.y1), T(0));
  const T overlap = width * height;
  return overlap / larger(box_area(a) + box_area(b) - overlap, T(kIouEps));
}

}  // namespace atss_ext

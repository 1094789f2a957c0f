// The overlap of one pair of boxes and its derivatives, for host and device.
#pragma once

#include "box_iou.h"
#include "dual.h"

namespace atss_ext {

template <typename T>
ATSS_HD T overlap_of(IoUMode mode, const Box<T>& a, const Box<T>& b) {
  switch (mode) {
    case IoUMode::kIoU:
      return box_overlap<IoUMode::kIoU>(a, b);
    case IoUMode::kIoF:
      return box_overlap<IoUMode::kIoF>(a, b);
    case IoUMode::kGIoU:
      return box_overlap<IoUMode::kGIoU>(a, b);
    case IoUMode::kDIoU:
      return box_overlap<IoUMode::kDIoU>(a, b);
    default:
      return box_overlap<IoUMode::kCIoU>(a, b);
  }
}

// grad times the derivatives of the overlap by the coordinates of both boxes.
template <typename T>
ATSS_HD void overlap_gradient(IoUMode mode, const T* box1, const T* box2, T grad, T* grad1, T* grad2) {
  using Number = Dual<T, 8>;
  Number n[8];
  for (int i = 0; i < 4; ++i) {
    n[i] = Number::variable(box1[i], i);
    n[i + 4] = Number::variable(box2[i], i + 4);
  }
  const Number overlap = overlap_of<Number>(mode, {n[0], n[1], n[2], n[3]}, {n[4], n[5], n[6], n[7]});
  for (int i = 0; i < 4; ++i) {
    grad1[i] = grad * overlap.slope[i];
    grad2[i] = grad * overlap.slope[i + 4];
  }
}

}  // namespace atss_ext

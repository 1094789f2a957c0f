// Box arithmetic, compiled for host and device: the one place where overlaps are defined.
// Written for any number type: float, double, and Dual for derivatives.
#pragma once

#include "arctangent.h"

namespace atss_ext {

// Keeps 0/0 out of the overlaps of zero-area boxes.
constexpr double kIouEps = 1e-6;

enum class IoUMode { kIoU, kIoF, kGIoU, kDIoU, kCIoU };

template <typename T>
struct Box {
  T x1, y1, x2, y2;
};

template <typename T>
ATSS_HD Box<T> load_box(const T* box) {
  return {box[0], box[1], box[2], box[3]};
}

template <typename T>
ATSS_HD T box_area(const Box<T>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

template <typename T>
ATSS_HD T intersection_area(const Box<T>& a, const Box<T>& b) {
  const T width = larger(smaller(a.x2, b.x2) - larger(a.x1, b.x1), T(0));
  const T height = larger(smaller(a.y2, b.y2) - larger(a.y1, b.y1), T(0));
  return width * height;
}

// Squared distance of the centres over the squared diagonal of the enclosing box (DIoU, arXiv 1911.08287 eq.
// 6).
template <typename T>
ATSS_HD T center_penalty(const Box<T>& a, const Box<T>& b, const T& enclosing_width,
                         const T& enclosing_height) {
  const T dx = (a.x1 + a.x2 - b.x1 - b.x2) / T(2), dy = (a.y1 + a.y2 - b.y1 - b.y2) / T(2);
  const T diagonal = enclosing_width * enclosing_width + enclosing_height * enclosing_height;
  return (dx * dx + dy * dy) / larger(diagonal, T(kIouEps));
}

// alpha v, how far the aspect ratios differ (CIoU, arXiv 1911.08287 eq. 8-11).
template <typename T>
ATSS_HD T aspect_penalty(const Box<T>& a, const Box<T>& b, const T& iou) {
  const T angle_a = arctangent((a.x2 - a.x1) / larger(a.y2 - a.y1, T(kIouEps)));
  const T angle_b = arctangent((b.x2 - b.x1) / larger(b.y2 - b.y1, T(kIouEps)));
  constexpr double kPi = 3.14159265358979323846;
  const T v = T(4 / (kPi * kPi)) * (angle_b - angle_a) * (angle_b - angle_a);
  return v * v / larger(T(1) - iou + v, T(kIouEps));
}

// The overlap of a with b, given their areas. IoU and IoF go operation by operation as mmdet's
// bbox_overlaps, so that thresholds fall alike.
template <IoUMode kMode, typename T>
ATSS_HD T box_overlap(const Box<T>& a, const Box<T>& b, const T& area_a, const T& area_b) {
  const T overlap = intersection_area(a, b);
  if constexpr (kMode == IoUMode::kIoF) {
    // Comparisons drop a NaN of b; its area keeps it visible, as in the other modes.
    return area_b == area_b ? overlap / larger(area_a, T(kIouEps)) : area_b;
  }
  const T union_area = larger(area_a + area_b - overlap, T(kIouEps));
  const T iou = overlap / union_area;
  if constexpr (kMode == IoUMode::kIoU) return iou;
  const T width = larger(a.x2, b.x2) - smaller(a.x1, b.x1);
  const T height = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
  if constexpr (kMode == IoUMode::kGIoU) {  // arXiv 1902.09630, Algorithm 1
    const T enclosing = larger(width * height, T(kIouEps));
    return iou - (enclosing - union_area) / enclosing;
  }
  const T diou = iou - center_penalty(a, b, width, height);
  if constexpr (kMode == IoUMode::kDIoU) return diou;
  return diou - aspect_penalty(a, b, iou);
}

template <IoUMode kMode, typename T>
ATSS_HD T box_overlap(const Box<T>& a, const Box<T>& b) {
  return box_overlap<kMode, T>(a, b, box_area(a), box_area(b));
}

}  // namespace atss_ext

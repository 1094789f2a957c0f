// What one prior learns from the gt it is assigned to, for host and device.
#pragma once

#include "nearest.h"

namespace atss_ext {

// Centerness of a prior's centre in its gt (FCOS, arXiv 1904.01355, eq. 3); 0 for a centre outside, where the
// formula has no value.
template <typename T>
ATSS_HD T centerness_of(Point<T> center, const Box<T>& gt) {
  const T left = center.x - gt.x1, right = gt.x2 - center.x;
  const T top = center.y - gt.y1, bottom = gt.y2 - center.y;
  constexpr T kTiny = std::numeric_limits<T>::min();
  const T across = larger(smaller(left, right), T(0)) / larger(larger(left, right), kTiny);
  const T along = larger(smaller(top, bottom), T(0)) / larger(larger(top, bottom), kTiny);
  return std::sqrt(across * along);
}

// The gts of one image.
template <typename T>
struct ImageGts {
  const T* boxes;         // [M, 4]
  const int64_t* labels;  // [M]
  int64_t count;          // M
};

// Where the targets of one image go.
template <typename T>
struct TargetRows {
  int64_t* labels;  // [N]
  T* weights;       // [N]
  bool* positive;   // [N]
  T* boxes;         // [N, 4]
  T* centerness;    // [N]
};

// Writes the targets of one prior and says whether it is positive. An assignment beyond the image's gts
// counts as background: nothing outside the arrays is read.
template <typename T>
ATSS_HD bool write_target(const T* priors, int64_t prior, int64_t assigned, const ImageGts<T>& gts,
                          int64_t num_classes, T pos_weight, const TargetRows<T>& out) {
  const bool positive = assigned > 0 && assigned <= gts.count;
  const T* box = positive ? gts.boxes + 4 * (assigned - 1) : priors + 4 * prior;
  for (int i = 0; i < 4; ++i) out.boxes[4 * prior + i] = box[i];
  out.labels[prior] = positive ? gts.labels[assigned - 1] : num_classes;
  out.weights[prior] = assigned < 0 ? T(0) : positive && pos_weight > 0 ? pos_weight : T(1);
  out.positive[prior] = positive;
  out.centerness[prior] = positive ? centerness_of(center_of(priors + 4 * prior), load_box(box)) : T(0);
  return positive;
}

}  // namespace atss_ext

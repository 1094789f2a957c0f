// Where points lie about gts, for many points at once.
#pragma once

#include "prediction_rows.h"

namespace atss_ext {

// Points and their reach: half the centre region for SimOTA, a stride in both directions for the soft label.
template <typename T>
struct PointColumns {
  std::vector<T> x, y, reach_x, reach_y;

  explicit PointColumns(int64_t count) : x(count), y(count), reach_x(count), reach_y(count) {}
  void copy(int64_t to, const PointColumns& from, int64_t i) {
    x[to] = from.x[i];
    y[to] = from.y[i];
    reach_x[to] = from.reach_x[i];
    reach_y[to] = from.reach_y[i];
  }
};

template <typename T>
struct PointPointers {
  const T *x, *y, *reach_x, *reach_y;

  PointPointers(const PointColumns<T>& points, int64_t begin)
      : x(points.x.data() + begin),
        y(points.y.data() + begin),
        reach_x(points.reach_x.data() + begin),
        reach_y(points.reach_y.data() + begin) {}
};

template <typename T>
struct CostGt {
  Box<T> box;
  T x, y;  // centre
  int64_t label;
};

template <typename T>
ATSS_HD void mark_points(const PointPointers<T>& points, int64_t count, const CostGt<T>& gt, bool regions,
                         int32_t* __restrict flags) {
  for (int64_t i = 0; i < count; ++i) flags[i] |= strictly_inside(points.x[i], points.y[i], gt.box);
  if (!regions) return;
  for (int64_t i = 0; i < count; ++i) {
    flags[i] |= near_center(points.x[i], points.y[i], points.reach_x[i], points.reach_y[i], gt.x, gt.y);
  }
}

template <typename T>
ATSS_HD void fill_both(const PointPointers<T>& points, int64_t count, const CostGt<T>& gt,
                       T* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const bool both = strictly_inside(points.x[i], points.y[i], gt.box) &
                      near_center(points.x[i], points.y[i], points.reach_x[i], points.reach_y[i], gt.x, gt.y);
    out[i] = both ? T(1) : T(0);
  }
}

template <typename T>
ATSS_HD void fill_nearness(const PointPointers<T>& points, int64_t count, const CostGt<T>& gt,
                           T* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = -stride_distance(points.x[i], points.y[i], points.reach_x[i], gt.x, gt.y);
  }
}

// Marks points inside a gt or, with regions, near its centre.
ATSS_VECTOR_CLONES static void mark_row(const PointPointers<float>& points, int64_t count,
                                        const CostGt<float>& gt, bool regions, int32_t* flags) {
  mark_points(points, count, gt, regions, flags);
}
ATSS_VECTOR_CLONES static void mark_row(const PointPointers<double>& points, int64_t count,
                                        const CostGt<double>& gt, bool regions, int32_t* flags) {
  mark_points(points, count, gt, regions, flags);
}
// 1 for points inside a gt and near its centre, 0 for others.
ATSS_VECTOR_CLONES static void both_row(const PointPointers<float>& points, int64_t count,
                                        const CostGt<float>& gt, float* out) {
  fill_both(points, count, gt, out);
}
ATSS_VECTOR_CLONES static void both_row(const PointPointers<double>& points, int64_t count,
                                        const CostGt<double>& gt, double* out) {
  fill_both(points, count, gt, out);
}
// The distance from a gt's centre in strides, negative.
ATSS_VECTOR_CLONES static void nearness_row(const PointPointers<float>& points, int64_t count,
                                            const CostGt<float>& gt, float* out) {
  fill_nearness(points, count, gt, out);
}
ATSS_VECTOR_CLONES static void nearness_row(const PointPointers<double>& points, int64_t count,
                                            const CostGt<double>& gt, double* out) {
  fill_nearness(points, count, gt, out);
}

}  // namespace atss_ext

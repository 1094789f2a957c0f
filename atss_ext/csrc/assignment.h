// What follows once a gt's candidates are known (ATSS, Algorithm 1, lines 7-17), for host and device.
#pragma once

#include "routes.h"

namespace atss_ext {

// The centre of a positive lies more than this far inside its gt, in pixels (official ATSS code, mmdet).
constexpr double kCenterMargin = 0.01;

template <typename T>
ATSS_HD bool center_inside(Point<T> center, const Box<T>& gt) {
  const T x = smaller(center.x - gt.x1, gt.x2 - center.x);
  const T y = smaller(center.y - gt.y1, gt.y2 - center.y);
  return smaller(x, y) > T(kCenterMargin);
}

// Mean plus standard deviation (unbiased) of the candidates' IoUs. Summed in double, in the order of the
// candidates, and rounded once: candidates of equal IoU meet it exactly. One candidate has a deviation of 0;
// none gives infinity.
template <typename T>
ATSS_HD T adaptive_threshold(const T* ious, int count) {
  if (count == 0) return std::numeric_limits<T>::infinity();
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += static_cast<double>(ious[i]);
  const double mean = sum / count;
  double squares = 0;
  for (int i = 0; i < count; ++i) {
    const double deviation = static_cast<double>(ious[i]) - mean;
    squares += deviation * deviation;
  }
  return static_cast<T>(mean + std::sqrt(squares / (count > 1 ? count - 1 : 1)));
}

// The candidates of one gt; the memory is the caller's, [C] each.
template <typename T>
struct Candidates {
  int32_t* priors;  // index within the image
  T* ious;
  int count;
};

// Collects the candidates of a gt, level by level and nearest first; returns how many there are.
template <typename T, typename Route>
ATSS_HD int find_candidates(const Columns& columns, const Route& route, const Box<T>& gt,
                            const PriorMasks& masks, T* squared, int32_t* priors) {
  const T corners[4] = {gt.x1, gt.y1, gt.x2, gt.y2};
  const Point<T> center = center_of(corners);
  int count = 0;
  for (int level = 0; level < columns.levels; ++level) {
    NearestList<T> list(squared + count, priors + count, columns.capacity[level]);
    if (list.capacity > 0) route.nearest(level, center, masks, list);
    count += list.size;
  }
  return count;
}

// Whether more than threshold of a prior's area lies in one of count ignore regions.
template <typename T>
ATSS_HD bool in_ignore_region(const Box<T>& prior, const T* regions, int64_t count, T threshold) {
  for (int64_t i = 0; i < count; ++i) {
    if (box_overlap<IoUMode::kIoF>(prior, load_box(regions + 4 * i)) > threshold) return true;
  }
  return false;
}

template <typename T>
ATSS_HD void fill_ious(const T* priors, const Box<T>& gt, const Candidates<T>& candidates) {
  const T area = box_area(gt);
  for (int i = 0; i < candidates.count; ++i) {
    const Box<T> prior = load_box(priors + 4 * static_cast<int64_t>(candidates.priors[i]));
    candidates.ious[i] = box_overlap<IoUMode::kIoU>(prior, gt, box_area(prior), area);
  }
}

// Whether candidate i of a gt is positive, before gts compete for it.
template <typename T>
ATSS_HD bool is_positive(const T* priors, const Box<T>& gt, const Candidates<T>& candidates, int i,
                         T threshold) {
  return candidates.ious[i] >= threshold &&
         center_inside(center_of(priors + 4 * static_cast<int64_t>(candidates.priors[i])), gt);
}

// Who holds a prior: assigned is i + 1 for gt i of the image, 0 or -1 for nobody.
template <typename T>
struct Holders {
  int64_t* assigned;  // [N], of the image
  T* ious;            // [N], of the image
  int64_t* counts;    // [M], priors held by each gt of the image

  ATSS_HD void take(int32_t prior, int64_t gt, T iou) const {
    if (assigned[prior] > 0) --counts[assigned[prior] - 1];
    assigned[prior] = gt + 1;
    ious[prior] = iou;
    ++counts[gt];
  }
};

// Gives a gt without a positive its best candidate among those nobody holds or whose holder has another:
// centre inside first, then the highest IoU, then the nearest. Not part of the paper.
template <typename T>
ATSS_HD void ensure_positive(const T* priors, const Box<T>& box, const Candidates<T>& candidates, int64_t gt,
                             const Holders<T>& holders) {
  if (holders.counts[gt] > 0) return;
  int best = -1;
  T best_score = -1;
  for (int i = 0; i < candidates.count; ++i) {
    const int32_t prior = candidates.priors[i];
    const int64_t holder = holders.assigned[prior];
    if (holder > 0 && holders.counts[holder - 1] < 2) continue;
    const T inside = center_inside(center_of(priors + 4 * static_cast<int64_t>(prior)), box) ? 2 : 0;
    const T score = inside + candidates.ious[i];
    if (score > best_score) {
      best_score = score;
      best = i;
    }
  }
  if (best >= 0) holders.take(candidates.priors[best], gt, candidates.ious[best]);
}

}  // namespace atss_ext

// The k nearest priors of a gt on one pyramid level (ATSS, Algorithm 1, lines 3-6), for host and device.
//
// Every route below visits priors in the order of their index and admits one only when it is strictly nearer
// than the farthest held, so that of equal distances the lower index wins, whatever route was taken.
#pragma once

#include <cmath>
#include <limits>

#include "box_iou.h"

namespace atss_ext {

// The distance given to priors inside an ignore region: behind every real one, still selectable (mmdet).
constexpr double kIgnoredDistance = 1e8;
// Priors that share one bounding rectangle of their centres when levels are not known to be grids.
constexpr int kBlock = 64;

template <typename T>
struct Point {
  T x, y;
};

template <typename T>
ATSS_HD Point<T> center_of(const T* box) {
  return {(box[0] + box[2]) / 2, (box[1] + box[3]) / 2};
}

template <typename T>
ATSS_HD T squared_distance(Point<T> a, Point<T> b) {
  const T dx = a.x - b.x, dy = a.y - b.y;
  return dx * dx + dy * dy;
}

// Which priors of one image take part, and which lie in an ignore region. Either may be null.
struct PriorMasks {
  const bool* valid;    // [N]
  const bool* ignored;  // [N]

  ATSS_HD bool any() const { return valid != nullptr || ignored != nullptr; }

  // The squared distance a prior is ranked by; infinite for one that takes no part.
  template <typename T>
  ATSS_HD T ranked(T distance, int64_t prior) const {
    if (valid != nullptr && !valid[prior]) return std::numeric_limits<T>::infinity();
    if (ignored != nullptr && ignored[prior]) return T(kIgnoredDistance * kIgnoredDistance);
    return distance;
  }
};

// The nearest priors so far, nearest first. The memory is the caller's.
template <typename T>
struct NearestList {
  T* distances;     // [capacity], squared
  int32_t* priors;  // [capacity], index within the image
  int capacity;
  int size;

  ATSS_HD NearestList(T* distances, int32_t* priors, int capacity)
      : distances(distances), priors(priors), capacity(capacity), size(0) {}
  ATSS_HD bool full() const { return size == capacity; }
  ATSS_HD T farthest() const { return distances[capacity - 1]; }
  // A distance has to be below this to be admitted; NaN and infinity never are.
  ATSS_HD T limit() const { return full() ? farthest() : std::numeric_limits<T>::infinity(); }

  ATSS_HD void admit(T distance, int32_t prior) {
    if (!(distance < limit())) return;
    int place = full() ? capacity - 1 : size++;
    for (; place > 0 && distance < distances[place - 1]; --place) {
      distances[place] = distances[place - 1];
      priors[place] = priors[place - 1];
    }
    distances[place] = distance;
    priors[place] = prior;
  }
};

// ---- Any priors: blocks of neighbouring indices, skipped where their rectangle is too far -----------------

// The centres of all priors and, for every block, the rectangle that holds its centres. Blocks do not cross
// levels.
template <typename T>
struct CenterBlocks {
  const T* x;       // [N]
  const T* y;       // [N]
  const T* bounds;  // [blocks, 4]: least x, least y, greatest x, greatest y
};

// A level of any priors.
struct AnyLevel {
  int64_t start;        // index of its first prior
  int64_t first_block;  // index of its first block
  int32_t size;         // priors

  ATSS_HD int32_t blocks() const { return (size + kBlock - 1) / kBlock; }
};

// A lower bound of what squared_distance gives for any centre of the block. Rounding is monotone, so the bound
// holds for the rounded distances too.
template <typename T>
ATSS_HD T block_bound(const T* bounds, Point<T> gt) {
  const T dx = larger(larger(bounds[0] - gt.x, gt.x - bounds[2]), T(0));
  const T dy = larger(larger(bounds[1] - gt.y, gt.y - bounds[3]), T(0));
  return dx * dx + dy * dy;
}

template <typename T>
ATSS_HD void fill_block_bounds(const T* x, const T* y, int32_t count, T* bounds) {
  bounds[0] = bounds[1] = std::numeric_limits<T>::infinity();
  bounds[2] = bounds[3] = -std::numeric_limits<T>::infinity();
  for (int32_t i = 0; i < count; ++i) {
    bounds[0] = smaller(bounds[0], x[i]);
    bounds[1] = smaller(bounds[1], y[i]);
    bounds[2] = larger(bounds[2], x[i]);
    bounds[3] = larger(bounds[3], y[i]);
  }
}

template <typename T>
ATSS_HD void scan_block(const CenterBlocks<T>& centers, const AnyLevel& level, int32_t block, Point<T> gt,
                        const PriorMasks& masks, T ceiling, NearestList<T>& list) {
  const int32_t begin = block * kBlock, count = level.size - begin < kBlock ? level.size - begin : kBlock;
  const int64_t first = level.start + begin;
  T distances[kBlock];
  for (int32_t i = 0; i < count; ++i) {
    distances[i] = squared_distance<T>({centers.x[first + i], centers.y[first + i]}, gt);
  }
  if (masks.any()) {
    for (int32_t i = 0; i < count; ++i) distances[i] = masks.ranked(distances[i], first + i);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (distances[i] <= ceiling) list.admit(distances[i], static_cast<int32_t>(first + i));
  }
}

// Fills list with the nearest priors of a level whose priors may lie anywhere.
template <typename T>
ATSS_HD void nearest_of_any(const CenterBlocks<T>& centers, const AnyLevel& level, Point<T> gt,
                            const PriorMasks& masks, NearestList<T>& list) {
  const int32_t blocks = level.blocks();
  const T* bounds = centers.bounds + 4 * level.first_block;
  int32_t nearest = 0;
  T least = std::numeric_limits<T>::infinity();
  for (int32_t block = 0; block < blocks; ++block) {
    const T bound = block_bound(bounds + 4 * block, gt);
    if (bound < least) {
      least = bound;
      nearest = block;
    }
  }
  // The nearest block and its neighbours give a ceiling: the k-th distance can only be lower.
  const T infinity = std::numeric_limits<T>::infinity();
  const int32_t reach = list.capacity / kBlock;
  const int32_t last = nearest + reach < blocks ? nearest + reach : blocks - 1;
  for (int32_t block = nearest > reach ? nearest - reach : 0; block <= last; ++block) {
    scan_block(centers, level, block, gt, masks, infinity, list);
  }
  const T ceiling = list.full() ? list.farthest() : infinity;
  // An ignored prior ranks by its fixed distance, wherever it lies.
  const T cap = masks.ignored != nullptr ? T(kIgnoredDistance * kIgnoredDistance) : infinity;
  list.size = 0;
  for (int32_t block = 0; block < blocks; ++block) {
    const T bound = smaller(block_bound(bounds + 4 * block, gt), cap);
    if (bound <= ceiling && bound < list.limit()) {
      scan_block(centers, level, block, gt, masks, ceiling, list);
    }
  }
}

}  // namespace atss_ext

// The k nearest priors of a gt on a level of any priors: neighbours in index form blocks, blocks form groups,
// and what is too far is skipped whole. For host and device.
#pragma once

#include "nearest.h"

namespace atss_ext {

// Priors that share one bounding rectangle of their centres when levels are not known to be grids, and
// rectangles that are looked at together.
constexpr int kBlock = 16;

// -----

// A rectangle that grows.
template <typename T>
struct Bounds {
  T left = std::numeric_limits<T>::infinity(), top = left, right = -left, bottom = -left;

  ATSS_HD void hold(T l, T t, T r, T b) {
    left = smaller(left, l);
    top = smaller(top, t);
    right = larger(right, r);
    bottom = larger(bottom, b);
  }
};

// Rectangles that hold centres: least and greatest x and y.
template <typename T>
struct Rectangles {
  T *left, *top, *right, *bottom;

  ATSS_HD void set(int64_t i, const Bounds<T>& bounds) const {
    left[i] = bounds.left;
    top[i] = bounds.top;
    right[i] = bounds.right;
    bottom[i] = bounds.bottom;
  }
  // A lower bound of what squared_distance gives for any centre inside. Rounding is monotone, so that it
  // holds for the rounded distances too. An empty one is infinitely far.
  ATSS_HD T bound(int64_t i, Point<T> gt) const {
    const T dx = larger(larger(left[i] - gt.x, gt.x - right[i]), T(0));
    const T dy = larger(larger(top[i] - gt.y, gt.y - bottom[i]), T(0));
    return dx * dx + dy * dy;
  }
};

// Centres, and the rectangles of their blocks and of groups of kBlock blocks. Levels are filled up to whole
// groups with centres at infinity, so that the inner loops have a constant length.
template <typename T>
struct CenterBlocks {
  T *x, *y;              // [groups, kBlock, kBlock]
  Rectangles<T> blocks;  // [groups, kBlock]
  Rectangles<T> groups;  // [groups]
};

// A level of any priors.
struct AnyLevel {
  int64_t start;        // index of its first prior
  int64_t first_group;  // index of its first group
  int32_t size;         // priors

  ATSS_HD int32_t groups() const {
    constexpr int32_t kGroup = kBlock * kBlock;
    return size / kGroup + (size % kGroup != 0);
  }
};

// Writes the centres and the rectangle of one block of a level.
template <typename T>
ATSS_HD void fill_block(const CenterBlocks<T>& centers, const AnyLevel& level, int64_t block,
                        const T* priors) {
  const int64_t index = level.first_group * kBlock + block, rest = level.size - block * kBlock;
  const int count = static_cast<int>(rest < 0 ? 0 : rest < kBlock ? rest : kBlock);
  const T* boxes = count > 0 ? priors + 4 * (level.start + block * kBlock) : nullptr;
  T *x = centers.x + index * kBlock, *y = centers.y + index * kBlock;
  Bounds<T> bounds;
  for (int i = 0; i < count; ++i) {
    const Point<T> center = center_of(boxes + 4 * i);
    x[i] = center.x;
    y[i] = center.y;
    bounds.hold(center.x, center.y, center.x, center.y);
  }
  for (int i = count; i < kBlock; ++i) x[i] = y[i] = std::numeric_limits<T>::infinity();
  centers.blocks.set(index, bounds);
}

// Writes the centres and the rectangles of one group of a level.
template <typename T>
ATSS_HD void fill_group(const CenterBlocks<T>& centers, const AnyLevel& level, int64_t group,
                        const T* priors) {
  const int64_t index = level.first_group + group;
  const Rectangles<T>& blocks = centers.blocks;
  Bounds<T> bounds;
  for (int i = 0; i < kBlock; ++i) {
    fill_block(centers, level, group * kBlock + i, priors);
    const int64_t block = index * kBlock + i;
    bounds.hold(blocks.left[block], blocks.top[block], blocks.right[block], blocks.bottom[block]);
  }
  centers.groups.set(index, bounds);
}

template <typename T>
ATSS_HD void scan_block(const CenterBlocks<T>& centers, const AnyLevel& level, int64_t block, Point<T> gt,
                        const PriorMasks& masks, NearestList<T>& list) {
  const int64_t index = (level.first_group * kBlock + block) * kBlock;
  const T *x = centers.x + index, *y = centers.y + index;
  T distances[kBlock];
  for (int i = 0; i < kBlock; ++i) distances[i] = squared_distance<T>({x[i], y[i]}, gt);
  const int64_t begin = block * kBlock, rest = level.size - begin;
  for (int i = 0; i < kBlock && i < rest; ++i) {
    const int64_t prior = level.start + begin + i;
    list.admit(masks.ranked(distances[i], prior), static_cast<int32_t>(prior));
  }
}

template <typename T>
ATSS_HD void scan_group(const CenterBlocks<T>& centers, const AnyLevel& level, int64_t group, Point<T> gt,
                        const PriorMasks& masks, T cap, NearestList<T>& list) {
  const int64_t index = level.first_group + group;
  if (smaller(centers.groups.bound(index, gt), cap) > list.limit()) return;  // NaN hides nothing
  T bounds[kBlock];
  for (int i = 0; i < kBlock; ++i) bounds[i] = smaller(centers.blocks.bound(index * kBlock + i, gt), cap);
  for (int i = 0; i < kBlock; ++i) {
    if (!(bounds[i] > list.limit())) scan_block(centers, level, group * kBlock + i, gt, masks, list);
  }
}

template <typename T>
ATSS_HD int32_t nearest_group(const CenterBlocks<T>& centers, const AnyLevel& level, Point<T> gt) {
  int32_t nearest = 0;
  T least = std::numeric_limits<T>::infinity();
  for (int32_t group = 0; group < level.groups(); ++group) {
    const T bound = centers.groups.bound(level.first_group + group, gt);
    if (bound < least) {
      least = bound;
      nearest = group;
    }
  }
  return nearest;
}

// Fills list with the nearest priors of a level whose priors may lie anywhere: from the nearest group
// outwards by index, because neighbours in index tend to be neighbours in the image.
template <typename T>
ATSS_HD void nearest_of_any(const CenterBlocks<T>& centers, const AnyLevel& level, Point<T> gt,
                            const PriorMasks& masks, NearestList<T>& list) {
  // An ignored prior ranks by its fixed distance, wherever it lies.
  const T cap =
      masks.ignored != nullptr ? T(kIgnoredDistance * kIgnoredDistance) : std::numeric_limits<T>::infinity();
  const int32_t groups = level.groups(), nearest = nearest_group(centers, level, gt);
  list.size = 0;
  for (int32_t up = nearest, down = nearest - 1; up < groups || down >= 0; ++up, --down) {
    if (up < groups) scan_group(centers, level, up, gt, masks, cap, list);
    if (down >= 0) scan_group(centers, level, down, gt, masks, cap, list);
  }
}

}  // namespace atss_ext

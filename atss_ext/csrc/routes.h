// The two ways to a gt's candidates, behind one call: levels of any priors, and levels known to be grids.
#pragma once

#include "blocks.h"
#include "grid.h"

namespace atss_ext {

// Levels travel to the device by value; pyramids have five or six.
constexpr int kMaxLevels = 16;

// How the C candidate columns of a gt divide among the levels.
struct Columns {
  int levels;
  int32_t capacity[kMaxLevels];  // min(k, priors of the level)
  int64_t total;                 // C

  ATSS_HD int64_t first(int level) const {
    int64_t column = 0;
    for (int l = 0; l < level; ++l) column += capacity[l];
    return column;
  }
};

// Masks of all images; either may be null.
struct BatchMasks {
  const bool* valid;    // [B, N]
  const bool* ignored;  // [B, N]

  ATSS_HD PriorMasks of(int64_t image, int64_t priors) const {
    const int64_t row = image * priors;
    return {valid != nullptr ? valid + row : nullptr, ignored != nullptr ? ignored + row : nullptr};
  }
  // Whether a prior (index over the batch) is neither positive nor negative unless a gt wins it.
  ATSS_HD bool hides(int64_t i) const {
    return (valid != nullptr && !valid[i]) || (ignored != nullptr && ignored[i]);
  }
};

template <typename T>
struct AnyRoute {
  // gts that are worth waking a thread for.
  static constexpr int64_t kGrain = 16;

  AnyLevel levels[kMaxLevels];
  CenterBlocks<T> centers;

  ATSS_HD void nearest(int level, Point<T> gt, const PriorMasks& masks, NearestList<T>& list) const {
    nearest_of_any(centers, levels[level], gt, masks, list);
  }
};

template <typename T>
struct GridRoute {
  static constexpr int64_t kGrain = 96;

  GridLevel levels[kMaxLevels];
  const T* priors;  // [N, 4]

  ATSS_HD void nearest(int level, Point<T> gt, const PriorMasks& masks, NearestList<T>& list) const {
    nearest_on_grid(levels[level], priors, gt, masks, list);
  }
};

// The image of a packed gt. Offsets come from the caller: whatever they hold, the answer is an image.
ATSS_HD int64_t image_of(const int64_t* offsets, int64_t images, int64_t gt) {
  int64_t low = 0, high = images - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle + 1] > gt) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Packed entries [begin, end).
struct Range {
  int64_t begin, end;
};

// The packed boxes of an image, of total. Offsets come from the caller, and on a device nobody has looked at
// them: whatever they hold, the range lies within the boxes.
ATSS_HD Range range_of(const int64_t* offsets, int64_t image, int64_t total) {
  const int64_t begin = smaller(larger(offsets[image], int64_t{0}), total);
  return {begin, smaller(larger(offsets[image + 1], begin), total)};
}

}  // namespace atss_ext

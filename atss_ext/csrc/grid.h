// The k nearest priors of a gt on a level that is known to be a grid: arithmetic instead of a search. The
// cost does not depend on the number of priors unless masks leave too few near a gt, or a gt lies far
// outside: then the window grows, up to the whole level. For host and device.
#pragma once

#include "nearest.h"

namespace atss_ext {

// A level whose priors stand row by row, column by column, anchor by anchor, with the centre of every anchor
// of cell (row, column) within slack of (offset_x + column * stride_x, offset_y + row * stride_y).
struct GridLevel {
  int64_t start;  // index of its first prior
  int32_t height, width, anchors;
  double stride_x, stride_y, offset_x, offset_y, slack;  // pixels
};

// Cells [left, right) x [top, bottom).
struct Window {
  int32_t left, right, top, bottom;

  ATSS_HD bool holds(const Window& other) const {
    return left <= other.left && right >= other.right && top <= other.top && bottom >= other.bottom;
  }
};

// Relative room for the rounding of float distances (a few parts in 2^24), and room in cells for the
// divisions below. Both only ever make a window larger.
constexpr double kDistanceRoom = 1e-6;
constexpr double kCellRoom = 1e-6;

// Beyond this side of a window the whole level is searched.
constexpr int64_t kWidestWindow = 1 << 20;

// The nearest integer cell index to value that lies in [0, count]; 0 for NaN.
ATSS_HD int32_t clip_cell(double value, int32_t count) {
  if (!(value > 0)) return 0;
  return value < count ? static_cast<int32_t>(value) : count;
}

// Side of a square of cells that holds the nearest cells of a point inside it, unless a border is near.
ATSS_HD int64_t window_side(int64_t priors, int64_t anchors) {
  const int64_t cells = (priors + anchors - 1) / anchors;
  return static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(cells)))) + 1;
}

// A span of side cells around position (in cells), moved to lie in [0, count] as far as that is possible.
ATSS_HD void span_around(double position, int64_t side, int32_t count, int32_t* begin, int32_t* end) {
  const int32_t latest = count > side ? static_cast<int32_t>(count - side) : 0;
  *begin = clip_cell(std::floor(position) - static_cast<double>(side / 2 - 1), latest);
  *end = *begin + side < count ? static_cast<int32_t>(*begin + side) : count;
}

ATSS_HD Window window_around(const GridLevel& level, double x, double y, int64_t side) {
  Window window;
  span_around((x - level.offset_x) / level.stride_x, side, level.width, &window.left, &window.right);
  span_around((y - level.offset_y) / level.stride_y, side, level.height, &window.top, &window.bottom);
  return window;
}

// Every cell whose priors may lie within the distance.
ATSS_HD Window window_within(const GridLevel& level, double x, double y, double distance) {
  const double reach = distance * (1 + kDistanceRoom) + level.slack;
  const double dx = x - level.offset_x, dy = y - level.offset_y;
  return {clip_cell(std::ceil((dx - reach) / level.stride_x - kCellRoom), level.width),
          clip_cell(std::floor((dx + reach) / level.stride_x + kCellRoom) + 1, level.width),
          clip_cell(std::ceil((dy - reach) / level.stride_y - kCellRoom), level.height),
          clip_cell(std::floor((dy + reach) / level.stride_y + kCellRoom) + 1, level.height)};
}

template <typename T>
ATSS_HD void scan_window(const GridLevel& level, const Window& window, const T* priors, Point<T> gt,
                         const PriorMasks& masks, NearestList<T>& list) {
  for (int32_t row = window.top; row < window.bottom; ++row) {
    const int64_t line = level.start + static_cast<int64_t>(row) * level.width * level.anchors;
    const int64_t end = line + static_cast<int64_t>(window.right) * level.anchors;
    for (int64_t i = line + static_cast<int64_t>(window.left) * level.anchors; i < end; ++i) {
      const T distance = squared_distance(center_of(priors + 4 * i), gt);
      list.admit(masks.ranked(distance, i), static_cast<int32_t>(i));
    }
  }
}

// Fills list with the nearest priors of a grid level; the same as a search through all of them.
template <typename T>
ATSS_HD void nearest_on_grid(const GridLevel& level, const T* priors, Point<T> gt, const PriorMasks& masks,
                             NearestList<T>& list) {
  const Window whole = {0, level.width, 0, level.height};
  int64_t side = window_side(list.capacity, level.anchors);
  Window window = window_around(level, gt.x, gt.y, side);
  for (;;) {
    list.size = 0;
    scan_window(level, window, priors, gt, masks, list);
    if (window.holds(whole)) return;
    if (list.full()) {
      const T farthest = list.farthest();
      // Ignored priors rank by a fixed distance: once one is held, nothing is known about where the rest lie.
      const bool boundless = masks.ignored != nullptr && !(farthest < T(kIgnoredDistance * kIgnoredDistance));
      const Window needed =
          boundless ? whole : window_within(level, gt.x, gt.y, std::sqrt(static_cast<double>(farthest)));
      if (window.holds(needed)) return;
      window = needed;
    } else {  // borders or masks left too few
      side *= 2;
      window = side < kWidestWindow ? window_around(level, gt.x, gt.y, side) : whole;
    }
  }
}

}  // namespace atss_ext

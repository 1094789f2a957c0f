// The centres of priors and the rectangles of their blocks, which the any-priors route searches.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "../arguments.h"

namespace atss_ext {

template <typename T>
struct PriorCenters {
  at::Tensor memory;  // [2 N + 4 blocks]
  AnyRoute<T> route;

  PriorCenters(const at::Tensor& priors, const Levels& levels) {
    const int64_t count = priors.size(0), blocks = levels.fill(route.levels);
    memory = at::empty({2 * count + 4 * blocks}, priors.options());
    T *x = memory.mutable_data_ptr<T>(), *y = x + count, *bounds = y + count;
    route.centers = {x, y, bounds};
    const T* boxes = priors.const_data_ptr<T>();
    for (const auto l : c10::irange(levels.sizes.size())) {
      const AnyLevel level = route.levels[l];
      at::parallel_for(0, level.blocks(), 64, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) fill_block(boxes, level, block, x, y, bounds);
      });
    }
  }

 private:
  static void fill_block(const T* boxes, const AnyLevel& level, int64_t block, T* x, T* y, T* bounds) {
    const int64_t first = level.start + block * kBlock;
    const int32_t count = static_cast<int32_t>(std::min<int64_t>(kBlock, level.size - block * kBlock));
    for (int64_t i = first; i < first + count; ++i) {
      const Point<T> center = center_of(boxes + 4 * i);
      x[i] = center.x;
      y[i] = center.y;
    }
    fill_block_bounds(x + first, y + first, count, bounds + 4 * (level.first_block + block));
  }
};

template <typename T>
GridRoute<T> grid_route(const at::Tensor& priors, const Levels& levels) {
  GridRoute<T> route;
  levels.fill(route.levels);
  route.priors = priors.const_data_ptr<T>();
  return route;
}

}  // namespace atss_ext

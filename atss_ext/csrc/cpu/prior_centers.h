// The centres of priors and the rectangles of their blocks, which the any-priors route searches.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "../arguments.h"

namespace atss_ext {

// Groups that are worth waking a thread for.
constexpr int64_t kGrain = 256;

template <typename T>
struct PriorCenters {
  AnyRoute<T> route;
  at::Tensor memory;

  PriorCenters(const at::Tensor& priors, const Levels& levels)
      : memory(center_blocks(priors, levels, &route)) {
    const T* boxes = priors.const_data_ptr<T>();
    for (const auto l : c10::irange(levels.sizes.size())) {
      const AnyLevel level = route.levels[l];
      at::parallel_for(0, level.groups(), kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t group = begin; group < end; ++group) fill_group(route.centers, level, group, boxes);
      });
    }
  }
};

}  // namespace atss_ext

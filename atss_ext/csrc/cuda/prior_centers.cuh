// The centres of priors and the rectangles of their blocks, which the any-priors route searches.
#pragma once

#include "../arguments.h"
#include "launch.h"

namespace atss_ext {

template <typename T>
struct FillGroup {
  CenterBlocks<T> centers;
  AnyLevel level;
  const T* priors;  // [N, 4]

  __device__ void operator()(int64_t group) const { fill_group(centers, level, group, priors); }
};

template <typename T>
struct PriorCenters {
  AnyRoute<T> route;
  at::Tensor memory;

  PriorCenters(const at::Tensor& priors, const Levels& levels)
      : memory(center_blocks(priors, levels, &route)) {
    for (const auto l : c10::irange(levels.sizes.size())) {
      const AnyLevel level = route.levels[l];
      for_each(level.groups(), FillGroup<T>{route.centers, level, priors.const_data_ptr<T>()});
    }
  }
};

}  // namespace atss_ext

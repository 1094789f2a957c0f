// The search for candidates, one thread a gt and level: enough threads for a batch, and every thread runs the
// very code of the CPU.
#pragma once

#include "prior_centers.cuh"

namespace atss_ext {

// What a search writes; columns of a level that stay empty are at its end.
template <typename T>
struct Found {
  T* squared;       // [T, C], distances
  int32_t* priors;  // [T, C], index within the image
  int32_t* sizes;   // [T, L], columns in use
};

struct SearchMemory {
  at::Tensor squared, integers;

  SearchMemory(const Batch& batch, const Columns& columns)
      : squared(at::empty({batch.num_gts(), columns.total}, batch.priors.options())),
        integers(at::empty({batch.num_gts(), columns.total + columns.levels},
                           batch.priors.options().dtype(at::kInt))) {}

  template <typename T>
  Found<T> found() const {
    int32_t* priors = integers.mutable_data_ptr<int32_t>();
    return {squared.mutable_data_ptr<T>(), priors, priors + squared.numel()};
  }
};

template <typename T, typename Route>
struct SearchLevel {
  const T* gt_boxes;       // [T, 4]
  const int64_t* offsets;  // [B + 1]
  int64_t images, num_priors;
  Columns columns;
  BatchMasks masks;
  Route route;
  Found<T> found;

  __device__ void operator()(int64_t i) const {
    const int64_t gt = i / columns.levels;
    const int level = static_cast<int>(i % columns.levels);
    const int64_t first = gt * columns.total + columns.first(level);
    NearestList<T> list(found.squared + first, found.priors + first, columns.capacity[level]);
    if (list.capacity > 0) {
      const PriorMasks own = masks.of(image_of(offsets, images, gt), num_priors);
      route.nearest(level, center_of(gt_boxes + 4 * gt), own, list);
    }
    found.sizes[i] = list.size;
  }
};

template <typename T, typename Route>
void search(const Batch& batch, const Columns& columns, const BatchMasks& masks, const Route& route,
            const Found<T>& found) {
  const SearchLevel<T, Route> body = {batch.gt_boxes.const_data_ptr<T>(),
                                      batch.offsets.const_data_ptr<int64_t>(),
                                      batch.images(),
                                      batch.num_priors(),
                                      columns,
                                      masks,
                                      route,
                                      found};
  for_each<kThreadsOfGts>(batch.num_gts() * columns.levels, body);
}

template <typename T>
void search(const Batch& batch, const Levels& levels, const Columns& columns, const BatchMasks& masks,
            const Found<T>& found) {
  if (levels.is_grid()) {
    search<T>(batch, columns, masks, grid_route<T>(batch.priors, levels), found);
  } else {
    const PriorCenters<T> centers(batch.priors, levels);
    search<T>(batch, columns, masks, centers.route, found);
  }
}

}  // namespace atss_ext

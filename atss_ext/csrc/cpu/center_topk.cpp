#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "prior_centers.h"

namespace atss_ext {
namespace {

struct Output {
  at::Tensor indices;    // [T, C] int64
  at::Tensor distances;  // [T, C]
};

// Fills one level's columns of one gt: the nearest first, then index 0 at an infinite distance.
template <typename T>
void write_columns(const NearestList<T>& list, int64_t* indices, T* distances) {
  for (int i = 0; i < list.size; ++i) {
    indices[i] = list.priors[i];
    distances[i] = std::sqrt(list.distances[i]);
  }
  for (int i = list.size; i < list.capacity; ++i) {
    indices[i] = 0;
    distances[i] = std::numeric_limits<T>::infinity();
  }
}

template <typename T, typename Route>
void search(const Batch& batch, const Columns& columns, const Route& route, const BatchMasks& masks,
            Output& out) {
  const T* boxes = batch.gt_boxes.const_data_ptr<T>();
  const int64_t* offsets = batch.offsets.const_data_ptr<int64_t>();
  int64_t* indices = out.indices.mutable_data_ptr<int64_t>();
  T* distances = out.distances.mutable_data_ptr<T>();
  at::parallel_for(0, batch.num_gts(), Route::kGrain, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> found(columns.total);
    std::vector<T> squared(columns.total);
    for (int64_t gt = begin; gt < end; ++gt) {
      const PriorMasks own = masks.of(image_of(offsets, batch.images(), gt), batch.num_priors());
      int64_t column = gt * columns.total;
      for (int level = 0; level < columns.levels; ++level) {
        NearestList<T> list(squared.data(), found.data(), columns.capacity[level]);
        if (list.capacity > 0) route.nearest(level, center_of(boxes + 4 * gt), own, list);
        write_columns(list, indices + column, distances + column);
        column += list.capacity;
      }
    }
  });
}

template <typename T>
void search(const Batch& batch, const Levels& levels, const Columns& columns, const BatchMasks& masks,
            Output& out) {
  if (levels.is_grid()) {
    search<T>(batch, columns, grid_route<T>(batch.priors, levels), masks, out);
  } else {
    search<T>(batch, columns, PriorCenters<T>(batch.priors, levels).route, masks, out);
  }
}

std::tuple<at::Tensor, at::Tensor> center_topk_cpu(const at::Tensor& priors, at::IntArrayRef level_sizes,
                                                   const at::Tensor& gt_boxes, const at::Tensor& offsets,
                                                   int64_t k, const OptionalTensor& valid,
                                                   const OptionalTensor& ignored, at::IntArrayRef grid_shapes,
                                                   at::ArrayRef<double> grid_geometry) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
  const Levels levels{level_sizes, grid_shapes, grid_geometry};
  levels.check(batch.num_priors());
  const Columns columns = levels.columns(k);
  const at::Tensor usable = check_mask(valid, batch, "valid"), behind = check_mask(ignored, batch, "ignored");
  const BatchMasks masks = {mask_data(usable), mask_data(behind)};
  Output out{at::empty({batch.num_gts(), columns.total}, batch.offsets.options()),
             at::empty({batch.num_gts(), columns.total}, batch.priors.options())};
  if (batch.priors.scalar_type() == at::kDouble) {
    search<double>(batch, levels, columns, masks, out);
  } else {
    search<float>(batch, levels, columns, masks, out);
  }
  return {out.indices, out.distances};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("center_topk", &center_topk_cpu); }

}  // namespace atss_ext

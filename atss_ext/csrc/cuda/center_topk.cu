#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "search.cuh"

namespace atss_ext {
namespace {

// Turns what a search found on one level into columns: then index 0 at an infinite distance.
template <typename T>
struct WriteColumns {
  Columns columns;
  Found<T> found;
  int64_t* indices;  // [T, C]
  T* distances;      // [T, C]

  __device__ void operator()(int64_t i) const {
    const int64_t gt = i / columns.levels;
    const int level = static_cast<int>(i % columns.levels);
    const int64_t first = gt * columns.total + columns.first(level);
    const int32_t size = found.sizes[i];
    for (int32_t c = 0; c < columns.capacity[level]; ++c) {
      const bool there = c < size;
      indices[first + c] = there ? found.priors[first + c] : 0;
      distances[first + c] = there ? std::sqrt(found.squared[first + c]) : std::numeric_limits<T>::infinity();
    }
  }
};

template <typename T>
std::tuple<at::Tensor, at::Tensor> search_levels(const Batch& batch, const Levels& levels,
                                                 const Columns& columns, const BatchMasks& masks) {
  const SearchMemory memory(batch, columns);
  const Found<T> found = memory.found<T>();
  search<T>(batch, levels, columns, masks, found);
  at::Tensor indices = at::empty({batch.num_gts(), columns.total}, batch.offsets.options());
  at::Tensor distances = at::empty({batch.num_gts(), columns.total}, batch.priors.options());
  for_each(
      batch.num_gts() * columns.levels,
      WriteColumns<T>{columns, found, indices.mutable_data_ptr<int64_t>(), distances.mutable_data_ptr<T>()});
  return {indices, distances};
}

std::tuple<at::Tensor, at::Tensor> center_topk_cuda(const at::Tensor& priors, at::IntArrayRef level_sizes,
                                                    const at::Tensor& gt_boxes, const at::Tensor& offsets,
                                                    int64_t k, const OptionalTensor& valid,
                                                    const OptionalTensor& ignored,
                                                    at::IntArrayRef grid_shapes,
                                                    at::ArrayRef<double> grid_geometry) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
  const c10::cuda::CUDAGuard guard(batch.priors.device());
  const Levels levels{level_sizes, grid_shapes, grid_geometry};
  levels.check(batch.num_priors());
  const Columns columns = levels.columns(k);
  const at::Tensor usable = check_mask(valid, batch, "valid"), behind = check_mask(ignored, batch, "ignored");
  const BatchMasks masks = {mask_data(usable), mask_data(behind)};
  return batch.priors.scalar_type() == at::kDouble ? search_levels<double>(batch, levels, columns, masks)
                                                   : search_levels<float>(batch, levels, columns, masks);
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CUDA, m) { m.impl("center_topk", &center_topk_cuda); }

}  // namespace atss_ext

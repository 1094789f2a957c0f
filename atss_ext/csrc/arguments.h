// What every backend asks of the arguments of an op, and their reading into plain structs. Host only.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>

#include <cmath>
#include <optional>
#include <string>

#include "routes.h"

namespace atss_ext {

using OptionalTensor = std::optional<at::Tensor>;

inline IoUMode parse_iou_mode(c10::string_view mode) {
  const std::string name(mode.data(), mode.size());
  if (name == "iou") return IoUMode::kIoU;
  if (name == "iof") return IoUMode::kIoF;
  if (name == "giou") return IoUMode::kGIoU;
  if (name == "diou") return IoUMode::kDIoU;
  TORCH_CHECK_VALUE(name == "ciou", "mode must be iou, iof, giou, diou or ciou, got '", name, "'");
  return IoUMode::kCIoU;
}

// float64 stays, all else is computed in float32: 11 bits cannot order the distances of a large image.
inline at::ScalarType compute_type(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == at::kDouble || b.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline void check_boxes(const at::Tensor& boxes, const char* name) {
  TORCH_CHECK_VALUE(boxes.dim() >= 1 && boxes.size(-1) == 4, name, " must be [..., 4], got ", boxes.sizes());
  TORCH_CHECK_VALUE(boxes.is_floating_point(), name, " must hold floats, got ", boxes.scalar_type());
}

inline void check_same_device(const at::Tensor& a, const at::Tensor& b, const char* name) {
  TORCH_CHECK_VALUE(a.device() == b.device(), name, " is on ", b.device(), " and the boxes on ", a.device(),
                    ": move one of them");
}

inline void check_offsets(const at::Tensor& offsets, const at::Tensor& boxes, const char* name) {
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.scalar_type() == at::kLong && offsets.numel() > 1, name,
                    " must be int64 [images + 1], got ", offsets.scalar_type(), " ", offsets.sizes());
  check_same_device(boxes, offsets, name);
  if (!offsets.is_cpu()) return;  // reading them back would stall the device
  const auto values = offsets.accessor<int64_t, 1>();
  const int64_t images = offsets.numel() - 1;
  for (const auto b : c10::irange(images)) {
    TORCH_CHECK_VALUE(values[b] <= values[b + 1], name, " must not decrease, got ", values[b], " before ",
                      values[b + 1]);
  }
  TORCH_CHECK_VALUE(values[0] == 0 && values[images] == boxes.size(0), name, " must run from 0 to ",
                    boxes.size(0), ", the number of boxes, got ", values[0], " to ", values[images]);
}

// The levels of a batch, as the schemas spell them: grid_shapes holds (height, width, anchors) and
// grid_geometry (stride x, stride y, offset x, offset y, slack) a level; both empty for any priors.
struct Levels {
  at::IntArrayRef sizes, grid_shapes;
  at::ArrayRef<double> grid_geometry;

  bool is_grid() const { return !grid_shapes.empty(); }

  void check(int64_t priors) const {
    TORCH_CHECK_VALUE(!sizes.empty() && sizes.size() <= kMaxLevels, "there must be 1 to ", kMaxLevels,
                      " levels, got ", sizes.size());
    int64_t sum = 0;
    for (const auto size : sizes) {
      // One by one, so that neither a sum of sizes nor an index can overflow.
      TORCH_CHECK_VALUE(size >= 0 && size <= INT32_MAX, "level sizes must lie in 0 to ", INT32_MAX, ", got ",
                        sizes);
      sum += size;
    }
    TORCH_CHECK_VALUE(sum == priors, "level sizes ", sizes, " add up to ", sum, ", but there are ", priors,
                      " priors");
    TORCH_CHECK_VALUE(priors <= INT32_MAX, "an image may have ", INT32_MAX, " priors, got ", priors);
    if (is_grid()) check_grid();
  }

  void check_grid() const {
    TORCH_CHECK_VALUE(grid_shapes.size() == 3 * sizes.size() && grid_geometry.size() == 5 * sizes.size(),
                      "a grid has 3 shape and 5 geometry values a level, got ", grid_shapes.size(), " and ",
                      grid_geometry.size(), " for ", sizes.size(), " levels");
    for (const auto l : c10::irange(sizes.size())) {
      const auto shape = grid_shapes.slice(3 * l, 3);
      const auto geometry = grid_geometry.slice(5 * l, 5);
      TORCH_CHECK_VALUE(is_shape_of(shape, sizes[l]), "level ", l, " has ", sizes[l],
                        " priors, but its grid is ", shape, " (height, width, anchors)");
      for (const double value : geometry) {
        TORCH_CHECK_VALUE(std::isfinite(value), "grid geometry must be finite, level ", l, " has ", geometry);
      }
      TORCH_CHECK_VALUE(geometry[0] > 0 && geometry[1] > 0 && geometry[4] >= 0,
                        "grid strides must be positive and slack not negative, level ", l, " has ", geometry);
    }
  }

  // Whether height x width x anchors is size; by divisions, because a product could overflow.
  static bool is_shape_of(at::IntArrayRef shape, int64_t size) {
    for (const int64_t extent : shape) {
      if (extent < 0 || extent > INT32_MAX) return false;
    }
    if (shape[2] == 0) return false;
    if (size == 0) return shape[0] == 0 || shape[1] == 0;
    return shape[0] > 0 && size % shape[0] == 0 && size / shape[0] % shape[2] == 0 &&
           size / shape[0] / shape[2] == shape[1];
  }

  Columns columns(int64_t k) const {
    TORCH_CHECK_VALUE(k >= 1, "k must be at least 1, got ", k);
    Columns columns{static_cast<int>(sizes.size()), {}, 0};
    for (const auto l : c10::irange(sizes.size())) {
      columns.capacity[l] = static_cast<int32_t>(std::min(k, sizes[l]));
      columns.total += columns.capacity[l];
    }
    return columns;
  }

  void fill(GridLevel* levels) const {
    int64_t start = 0;
    for (const auto l : c10::irange(sizes.size())) {
      const auto shape = grid_shapes.slice(3 * l, 3);
      const auto g = grid_geometry.slice(5 * l, 5);
      levels[l] = {start,
                   static_cast<int32_t>(shape[0]),
                   static_cast<int32_t>(shape[1]),
                   static_cast<int32_t>(shape[2]),
                   g[0],
                   g[1],
                   g[2],
                   g[3],
                   g[4]};
      start += sizes[l];
    }
  }

  // Returns the number of groups.
  int64_t fill(AnyLevel* levels) const {
    int64_t start = 0, group = 0;
    for (const auto l : c10::irange(sizes.size())) {
      levels[l] = {start, group, static_cast<int32_t>(sizes[l])};
      start += sizes[l];
      group += levels[l].groups();
    }
    return group;
  }
};

// Priors and gts of a batch in the type they are computed in.
struct Batch {
  at::Tensor priors;    // [N, 4]
  at::Tensor gt_boxes;  // [T, 4]
  at::Tensor offsets;   // [B + 1]

  int64_t num_priors() const { return priors.size(0); }
  int64_t num_gts() const { return gt_boxes.size(0); }
  int64_t images() const { return offsets.numel() - 1; }
};

inline Batch check_batch(const at::Tensor& priors, const at::Tensor& gt_boxes, const at::Tensor& offsets) {
  check_boxes(priors, "priors");
  check_boxes(gt_boxes, "gt_boxes");
  TORCH_CHECK_VALUE(priors.dim() == 2, "priors must be [N, 4], got ", priors.sizes());
  TORCH_CHECK_VALUE(gt_boxes.dim() == 2, "gt_boxes must be [T, 4], got ", gt_boxes.sizes());
  check_same_device(priors, gt_boxes, "gt_boxes");
  check_offsets(offsets, gt_boxes, "offsets");
  const auto dtype = compute_type(priors, gt_boxes);
  return {priors.to(dtype).contiguous(), gt_boxes.to(dtype).contiguous(), offsets.contiguous()};
}

// Contiguous [B, N], or undefined where there is none.
inline at::Tensor check_mask(const OptionalTensor& mask, const Batch& batch, const char* name) {
  if (!mask) return {};
  TORCH_CHECK_VALUE(mask->scalar_type() == at::kBool && mask->dim() == 2 && mask->size(0) == batch.images() &&
                        mask->size(1) == batch.num_priors(),
                    name, " must be bool [", batch.images(), ", ", batch.num_priors(),
                    "] (images, priors), got ", mask->scalar_type(), " ", mask->sizes());
  check_same_device(batch.priors, *mask, name);
  return mask->contiguous();
}

inline const bool* mask_data(const at::Tensor& mask) {
  return mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
}

template <typename T>
GridRoute<T> grid_route(const at::Tensor& priors, const Levels& levels) {
  GridRoute<T> route;
  levels.fill(route.levels);
  route.priors = priors.const_data_ptr<T>();
  return route;
}

template <typename T>
Rectangles<T> take_rectangles(T** memory, int64_t count) {
  T* start = *memory;
  *memory += 4 * count;
  return {start, start + count, start + 2 * count, start + 3 * count};
}

// The memory of an AnyRoute, to be filled group by group.
template <typename T>
at::Tensor center_blocks(const at::Tensor& priors, const Levels& levels, AnyRoute<T>* route) {
  const int64_t groups = levels.fill(route->levels), blocks = groups * kBlock, centers = blocks * kBlock;
  at::Tensor memory = at::empty({2 * centers + 4 * blocks + 4 * groups}, priors.options());
  T *x = memory.mutable_data_ptr<T>(), *rest = x + 2 * centers;
  const Rectangles<T> of_blocks = take_rectangles(&rest, blocks);
  route->centers = {x, x + centers, of_blocks, take_rectangles(&rest, groups)};
  return memory;
}

}  // namespace atss_ext

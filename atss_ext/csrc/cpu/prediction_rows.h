// The priors of one image that take part, as columns, and the rows of values a gt has over them. A row is as
// long as an image has priors: no matrix of a batch is ever in memory.
#pragma once

#include <ATen/Parallel.h>

#include <limits>
#include <vector>

#include "../prediction_arguments.h"

namespace atss_ext {

// Priors that are worth waking a thread for, and gts.
constexpr int64_t kRowGrain = 1 << 12;
constexpr int64_t kGtGrain = 2;
// Values of a row that are looked at together.
constexpr int64_t kScan = 64;

// The scores of a batch where they lie; S is their own type.
template <typename S>
struct Scores {
  const S* data;
  int64_t image, prior, class_, classes;  // strides, and C

  explicit Scores(const at::Tensor& scores)
      : data(scores.const_data_ptr<S>()),
        image(scores.stride(0)),
        prior(scores.stride(1)),
        class_(scores.stride(2)),
        classes(scores.size(2)) {}
  const S* row(int64_t b, int64_t n) const { return data + b * image + n * prior; }
  template <typename T>
  T at(int64_t b, int64_t n, int64_t c) const {
    return static_cast<T>(row(b, n)[c * class_]);
  }
};

// Predicted boxes of the priors of an image that take part, in the order of the priors.
template <typename T>
struct PredictionColumns {
  std::vector<int32_t> priors;  // index within the image
  std::vector<T> x1, y1, x2, y2, area;

  explicit PredictionColumns(int64_t capacity)
      : x1(capacity), y1(capacity), x2(capacity), y2(capacity), area(capacity) {
    priors.reserve(capacity);
  }
  int64_t count() const { return static_cast<int64_t>(priors.size()); }
  Box<T> box(int64_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }

  // Reads the boxes of the priors listed.
  void read(const T* boxes) {
    at::parallel_for(0, count(), kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Box<T> box = load_box(boxes + 4 * static_cast<int64_t>(priors[i]));
        x1[i] = box.x1;
        y1[i] = box.y1;
        x2[i] = box.x2;
        y2[i] = box.y2;
        area[i] = box_area(box);
      }
    });
  }
};

template <typename T>
struct ColumnPointers {
  const T *x1, *y1, *x2, *y2, *area;
};

template <typename T>
ColumnPointers<T> pointers(const PredictionColumns<T>& columns) {
  return {columns.x1.data(), columns.y1.data(), columns.x2.data(), columns.y2.data(), columns.area.data()};
}

// IoU of every predicted box with a gt.
template <typename T>
ATSS_HD void fill_overlaps(const ColumnPointers<T>& columns, int64_t count, const Box<T>& gt,
                           T* __restrict out) {
  const T area = box_area(gt);
  for (int64_t i = 0; i < count; ++i) {
    const Box<T> box = {columns.x1[i], columns.y1[i], columns.x2[i], columns.y2[i]};
    out[i] = box_overlap<IoUMode::kIoU>(box, gt, columns.area[i], area);
  }
}

// Where the next values above a limit may be: the first block from begin on that holds one, or the rest.
template <typename T>
ATSS_HD int64_t find_block(const T* values, int64_t begin, int64_t count, T limit) {
  for (; begin + kScan <= count; begin += kScan) {
    int any = 0;
    for (int64_t i = 0; i < kScan; ++i) any |= values[begin + i] > limit;
    if (any != 0) return begin;
  }
  return begin;
}

// Static, because clones of inline functions of several files would have to be merged; each file uses some.
[[maybe_unused]] ATSS_VECTOR_CLONES static void overlap_row(const ColumnPointers<float>& columns,
                                                            int64_t count, const Box<float>& gt, float* out) {
  fill_overlaps(columns, count, gt, out);
}
[[maybe_unused]] ATSS_VECTOR_CLONES static void overlap_row(const ColumnPointers<double>& columns,
                                                            int64_t count, const Box<double>& gt,
                                                            double* out) {
  fill_overlaps(columns, count, gt, out);
}
[[maybe_unused]] ATSS_VECTOR_CLONES static int64_t next_block(const float* values, int64_t begin,
                                                              int64_t count, float limit) {
  return find_block(values, begin, count, limit);
}
[[maybe_unused]] ATSS_VECTOR_CLONES static int64_t next_block(const double* values, int64_t begin,
                                                              int64_t count, double limit) {
  return find_block(values, begin, count, limit);
}

// Calls visit for every value above the limit, which visits may raise, in the order of the row.
template <typename T, typename Limit, typename Visit>
void visit_above(const T* values, int64_t count, const Limit& limit, const Visit& visit) {
  for (int64_t begin = 0; (begin = next_block(values, begin, count, limit())) < count; begin += kScan) {
    const int64_t end = smaller(begin + kScan, count);
    for (int64_t i = begin; i < end; ++i) {
      if (values[i] > limit()) visit(i);
    }
  }
}

// The greatest values of a row, negative, greatest first.
template <typename T>
void find_greatest(const T* values, int64_t count, LeastList<T>& list) {
  visit_above(
      values, count, [&] { return -list.limit(); },
      [&](int64_t i) { list.admit(-values[i], static_cast<int32_t>(i)); });
}

// Marks what is not valid.
inline void fill_invalid(const PredictionBatch& batch, at::Tensor& assigned) {
  const bool* valid = mask_data(batch.valid);
  if (valid == nullptr) return;
  int64_t* out = assigned.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < assigned.numel(); ++i) {
    if (!valid[i]) out[i] = -1;
  }
}

}  // namespace atss_ext

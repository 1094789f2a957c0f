// Rows of a weighted sum of one head's causal attention, from q and k alone: for a block of queries at a time
// the scores are made, turned into probabilities and multiplied, all within the caches of a core.
//
// N tokens, D channels, O objects. Widths are compile-time: three instruction sets share one source, which
// GCC's vector types carry (Clang has them too). Contraction is on, unlike elsewhere: a product of matrices
// without fused multiply-add takes twice as long, and its last bits are nobody's reference.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "../portable.h"

#if defined(__clang__)
#pragma clang fp contract(fast)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
#endif

namespace atss_ext {

// Floats of a cache line; what the workspace is aligned to.
constexpr int64_t kLine = 16;
// Queries of a block, a multiple of every kRows below.
constexpr int64_t kQueries = 48;
// Objects multiplied together.
constexpr int kObjects = 4;

// A vector register, and the tile of kRows x kVectors of them that sums of products fill while a few hold
// factors.
struct Wide {  // AVX-512
  typedef float Float __attribute__((vector_size(64), may_alias));
  typedef uint32_t Int __attribute__((vector_size(64)));
  static constexpr int kRows = 12, kVectors = 2;
};
struct Middle {  // AVX2
  typedef float Float __attribute__((vector_size(32), may_alias));
  typedef uint32_t Int __attribute__((vector_size(32)));
  static constexpr int kRows = 6, kVectors = 2;
};
struct Narrow {  // SSE2, NEON
  typedef float Float __attribute__((vector_size(16), may_alias));
  typedef uint32_t Int __attribute__((vector_size(16)));
  static constexpr int kRows = 6, kVectors = 2;
};

template <class V>
constexpr int64_t kLanes = sizeof(typename V::Float) / sizeof(float);
// Keys of a panel.
template <class V>
constexpr int64_t kPanel = kLanes<V> * V::kVectors;

ATSS_HD constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// One head of N queries and keys of D channels; neighbours in D lie side by side.
struct Head {
  const float *query, *key;
  int64_t query_stride, key_stride;  // from token to token
  int64_t tokens, depth;
  float scale;  // of the scores, as powers of two: log2(e) is part of it
};

// Where one thread works; every part is aligned to a line.
struct Workspace {
  float* keys;      // [panels, D, kPanel]
  float* queries;   // [kQueries / kRows, D, kRows]
  float* scores;    // [kQueries, stride]
  float* products;  // [O, stride]
  float* weights;   // [O, kQueries]
  int64_t stride;

  // An odd number of lines, so that the rows of a block do not share the sets of a cache.
  static int64_t stride_of(int64_t tokens) { return round_up(tokens, 2 * kLine) + kLine; }
  // Floats of all parts.
  static int64_t size(int64_t tokens, int64_t depth, int64_t objects) {
    const int64_t width = stride_of(tokens);
    return width * (depth + kQueries + objects) + round_up(kQueries * depth, kLine) + objects * kQueries;
  }
  Workspace(float* memory, int64_t tokens, int64_t depth, int64_t objects) : stride(stride_of(tokens)) {
    keys = memory;
    queries = keys + stride * depth;
    scores = queries + round_up(kQueries * depth, kLine);
    products = scores + kQueries * stride;
    weights = products + objects * stride;
  }
};

template <class V>
ATSS_HD typename V::Float& vector_at(float* place) {
  return *reinterpret_cast<typename V::Float*>(place);
}

template <class V>
ATSS_HD const typename V::Float& vector_at(const float* place) {
  return *reinterpret_cast<const typename V::Float*>(place);
}

// x into 2^x for x <= 0, good to 2 ulp; 0 where the result would be subnormal, NaN stays NaN.
template <class V>
ATSS_HD void raise_two(typename V::Float& x) {
  using Float = typename V::Float;
  using Int = typename V::Int;
  constexpr float kLeast = -126, kShift = 12582912;  // 1.5 * 2^23: adding it rounds to an integer
  const Float inside = x < kLeast ? Float{} + kLeast : x;
  const Float shifted = inside + kShift;
  const Float part = inside - (shifted - kShift);  // -1/2 .. 1/2
  // Taylor's series of 2^part; the first term left out is below 1.3e-7.
  Float power = part * 1.5403530393381609954e-4f + 1.3333558146428443423e-3f;
  power = power * part + 9.6181291076284771619e-3f;
  power = power * part + 5.5504108664821579953e-2f;
  power = power * part + 2.4022650695910071233e-1f;
  power = power * part + 6.9314718055994530942e-1f;
  power = power * part + 1.0f;
  // The integer stands in the low bits of `shifted`; moved up it is the exponent. Casts keep the bits.
  const Int exponent = ((Int)shifted + 127) << 23;
  power *= (Float)exponent;
  x = x < kLeast ? Float{} : power;
}

// Keys in panels: those of a panel side by side for each channel; zeros beyond the last.
template <class V>
ATSS_HD void pack_keys(const Head& head, float* out) {
  for (int64_t first = 0; first < head.tokens; first += kPanel<V>) {
    for (int64_t c = 0; c < kPanel<V>; ++c) {
      const bool there = first + c < head.tokens;
      const float* key = head.key + (there ? first + c : 0) * head.key_stride;
      for (int64_t d = 0; d < head.depth; ++d) out[d * kPanel<V> + c] = there ? key[d] : 0;
    }
    out += head.depth * kPanel<V>;
  }
}

// Scaled queries in groups of kRows; zeros beyond the last.
template <class V>
ATSS_HD void pack_queries(const Head& head, int64_t first, int64_t count, float* out) {
  for (int64_t row = 0; row < round_up(count, V::kRows); ++row) {
    const bool there = row < count;
    const float* query = head.query + (first + (there ? row : 0)) * head.query_stride;
    float* target = out + row / V::kRows * V::kRows * head.depth + row % V::kRows;
    for (int64_t d = 0; d < head.depth; ++d) target[d * V::kRows] = there ? query[d] * head.scale : 0;
  }
}

// Scores of kRows queries and the keys of a panel.
template <class V>
ATSS_HD void score_tile(const float* query, const float* key, int64_t depth, float* out, int64_t stride) {
  typename V::Float sums[V::kRows][V::kVectors] = {};
  for (int64_t d = 0; d < depth; ++d) {
    typename V::Float factor[V::kVectors];
    for (int v = 0; v < V::kVectors; ++v) factor[v] = vector_at<V>(key + v * kLanes<V>);
#pragma GCC unroll 12
    for (int row = 0; row < V::kRows; ++row) {
#pragma GCC unroll 2
      for (int v = 0; v < V::kVectors; ++v) sums[row][v] += query[row] * factor[v];
    }
    query += V::kRows;
    key += kPanel<V>;
  }
  for (int row = 0; row < V::kRows; ++row) {
    for (int v = 0; v < V::kVectors; ++v) vector_at<V>(out + row * stride + v * kLanes<V>) = sums[row][v];
  }
}

// The scores of a row into exp(score - greatest); returns their sum, which makes probabilities of them. The
// row ends after `seen` keys, up to `width` it gets zeros.
template <class V>
ATSS_HD float exponentials(float* row, int64_t seen, int64_t width) {
  using Float = typename V::Float;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int64_t end = round_up(seen, kLanes<V>);
  for (int64_t j = seen; j < end; ++j) row[j] = -kInfinity;
  Float most = Float{} - kInfinity;
  for (int64_t j = 0; j < end; j += kLanes<V>) {
    const Float scores = vector_at<V>(row + j);
    most = most < scores ? scores : most;
  }
  float greatest = -kInfinity;
  for (int64_t lane = 0; lane < kLanes<V>; ++lane) greatest = larger(greatest, most[lane]);
  Float sums = {};
  for (int64_t j = 0; j < end; j += kLanes<V>) {
    Float& value = vector_at<V>(row + j);
    value -= greatest;
    raise_two<V>(value);
    sums += value;
  }
  for (int64_t j = end; j < width; j += kLanes<V>) vector_at<V>(row + j) = Float{};
  float sum = 0;
  for (int64_t lane = 0; lane < kLanes<V>; ++lane) sum += sums[lane];
  return sum;
}

// Adds weights [kCount, kQueries] x probabilities [rows, width] to products [kCount, width]. The last query
// comes first: where weight piles up on early tokens, the small terms are summed before the great ones.
template <class V, int kCount>
ATSS_HD void add_products(const float* weights, const float* probabilities, int64_t rows, int64_t width,
                          int64_t stride, float* products) {
  for (int64_t j = 0; j < width; j += kPanel<V>) {
    typename V::Float sums[kCount][V::kVectors];
    for (int o = 0; o < kCount; ++o) {
      for (int v = 0; v < V::kVectors; ++v) {
        sums[o][v] = vector_at<V>(products + o * stride + j + v * kLanes<V>);
      }
    }
    for (int64_t row = rows - 1; row >= 0; --row) {
      const float* factors = probabilities + row * stride + j;
#pragma GCC unroll 2
      for (int v = 0; v < V::kVectors; ++v) {
        const typename V::Float factor = vector_at<V>(factors + v * kLanes<V>);
#pragma GCC unroll 4
        for (int o = 0; o < kCount; ++o) sums[o][v] += weights[o * kQueries + row] * factor;
      }
    }
    for (int o = 0; o < kCount; ++o) {
      for (int v = 0; v < V::kVectors; ++v) {
        vector_at<V>(products + o * stride + j + v * kLanes<V>) = sums[o][v];
      }
    }
  }
}

// Adds what a block of queries gives to all objects' products.
template <class V>
ATSS_HD void add_block(const Workspace& space, int64_t objects, int64_t rows, int64_t width) {
  int64_t o = 0;
  for (; o + kObjects <= objects; o += kObjects) {
    add_products<V, kObjects>(space.weights + o * kQueries, space.scores, rows, width, space.stride,
                              space.products + o * space.stride);
  }
  for (; o < objects; ++o) {
    add_products<V, 1>(space.weights + o * kQueries, space.scores, rows, width, space.stride,
                       space.products + o * space.stride);
  }
}

// rows [O, N] x softmax -> products [O, N]; returns the mean over the queries of their greatest probability.
template <class V>
ATSS_HD float attend(const Head& head, const float* rows, int64_t objects, const Workspace& space,
                     float* products) {
  const int64_t tokens = head.tokens, stride = space.stride;
  pack_keys<V>(head, space.keys);
  std::memset(space.products, 0, sizeof(float) * objects * stride);
  double certainty = 0;
  for (int64_t first = (tokens - 1) / kQueries * kQueries; first >= 0; first -= kQueries) {
    const int64_t count = smaller(kQueries, tokens - first), end = first + count;
    pack_queries<V>(head, first, count, space.queries);
    for (int64_t panel = 0; panel < end; panel += kPanel<V>) {
      // Groups above the diagonal see none of the panel's keys.
      for (int64_t row = 0; row < count; row += V::kRows) {
        if (panel > first + row + V::kRows - 1) continue;
        score_tile<V>(space.queries + row * head.depth, space.keys + panel * head.depth, head.depth,
                      space.scores + row * stride + panel, stride);
      }
    }
    const int64_t width = round_up(end, kPanel<V>);
    for (int64_t row = 0; row < count; ++row) {
      // exp(greatest - greatest) over the sum
      const float share = 1 / exponentials<V>(space.scores + row * stride, first + row + 1, width);
      certainty += share;
      for (int64_t o = 0; o < objects; ++o) {
        space.weights[o * kQueries + row] = rows[o * tokens + first + row] * share;
      }
    }
    add_block<V>(space, objects, count, width);
  }
  for (int64_t o = 0; o < objects; ++o) {
    std::memcpy(products + o * tokens, space.products + o * stride, sizeof(float) * tokens);
  }
  return static_cast<float>(certainty / tokens);
}

using Attend = float (*)(const Head&, const float*, int64_t, const Workspace&, float*);

inline float attend_narrow(const Head& head, const float* rows, int64_t objects, const Workspace& space,
                           float* products) {
  return attend<Narrow>(head, rows, objects, space, products);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) inline float attend_middle(const Head& head, const float* rows,
                                                               int64_t objects, const Workspace& space,
                                                               float* products) {
  return attend<Middle>(head, rows, objects, space, products);
}

__attribute__((target("avx512f,avx512dq,avx512vl,fma"))) inline float attend_wide(
    const Head& head, const float* rows, int64_t objects, const Workspace& space, float* products) {
  return attend<Wide>(head, rows, objects, space, products);
}
#endif

}  // namespace atss_ext

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

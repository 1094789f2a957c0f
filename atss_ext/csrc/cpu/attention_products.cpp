// GCC's vector types; another compiler builds no kernel, and PyTorch serves.
#if defined(__GNUC__)

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cmath>
#include <string>
#include <tuple>

#include "attention_kernel.h"

namespace atss_ext {
namespace {

// For the vectors that torch uses too: those of this processor, unless ATEN_CPU_CAPABILITY says less.
Attend choose() {
#if defined(__x86_64__)
  const std::string capability = at::get_cpu_capability();
  if (capability.rfind("AVX512", 0) == 0) return attend_wide;
  if (capability == "AVX2") return attend_middle;
#endif
  return attend_narrow;
}

void check_attention(const at::Tensor& rows, const at::Tensor& query, const at::Tensor& key) {
  TORCH_CHECK_VALUE(query.dim() == 3 && key.dim() == 3 && query.size(1) == key.size(1) &&
                        query.size(2) == key.size(2) && query.size(2) > 0,
                    "query and key must be [H, N, D] and [G, N, D], got ", query.sizes(), " and ",
                    key.sizes());
  TORCH_CHECK_VALUE(key.size(0) > 0 && query.size(0) % key.size(0) == 0, query.size(0),
                    " query heads cannot share ", key.size(0), " key heads evenly");
  TORCH_CHECK_VALUE(rows.dim() == 2 && rows.size(1) == query.size(1), "rows must be [O, ", query.size(1),
                    "], got ", rows.sizes());
}

// As the kernel reads it: float32, neighbours in D side by side.
at::Tensor readable(const at::Tensor& values) {
  const at::Tensor floats = values.to(at::kFloat);
  return floats.stride(2) == 1 ? floats : floats.contiguous();
}

std::tuple<at::Tensor, at::Tensor> attention_products_cpu(const at::Tensor& rows, const at::Tensor& query,
                                                          const at::Tensor& key, double scale) {
  check_attention(rows, query, key);
  const at::Tensor q = readable(query), k = readable(key), w = rows.to(at::kFloat).contiguous();
  const int64_t heads = q.size(0), tokens = q.size(1), depth = q.size(2), objects = w.size(0);
  at::Tensor products = at::empty({heads, objects, tokens}, w.options());
  at::Tensor certainty = at::empty({heads}, w.options());
  if (tokens == 0) return {products, certainty.zero_()};
  static const Attend attend_head = choose();
  const int64_t group = heads / k.size(0);
  const float *query_data = q.const_data_ptr<float>(), *key_data = k.const_data_ptr<float>();
  const float* row_data = w.const_data_ptr<float>();
  float *product_data = products.mutable_data_ptr<float>(), *mean = certainty.mutable_data_ptr<float>();
  const float factor = static_cast<float>(scale * M_LOG2E);
  at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor memory = at::empty({Workspace::size(tokens, depth, objects) + kLine}, w.options());
    const auto address = reinterpret_cast<uintptr_t>(memory.mutable_data_ptr<float>());
    float* start = reinterpret_cast<float*>(round_up(address, kLine * sizeof(float)));
    const Workspace space(start, tokens, depth, objects);
    for (int64_t h = begin; h < end; ++h) {
      const Head head = {query_data + h * q.stride(0),
                         key_data + h / group * k.stride(0),
                         q.stride(1),
                         k.stride(1),
                         tokens,
                         depth,
                         factor};
      mean[h] = attend_head(head, row_data, objects, space, product_data + h * objects * tokens);
    }
  });
  return {products, certainty};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("attention_products", &attention_products_cpu); }

}  // namespace atss_ext

#endif

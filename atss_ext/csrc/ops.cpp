// The schemas of every native op, and the empty module that lets Python import the library.
//
// Letters: B images, T gts of the batch (packed, image b owns [offsets[b], offsets[b + 1])), N priors of an
// image, L levels, C candidates of a gt. grid_shapes and grid_geometry describe levels that are grids
// (arguments.h); both are empty for any priors.
#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(atss_ext, m) {
  // [N, 4] x [M, 4] -> [N, M]; [B, N, 4] x [B, M, 4] -> [B, N, M];
  // with offsets, [N, 4] or [B, N, 4] x [T, 4] -> [N, T]
  m.def("batched_box_iou(Tensor boxes1, Tensor boxes2, Tensor? offsets, str mode) -> Tensor");
  // [..., 4] x [..., 4] -> [...]
  m.def("aligned_box_iou(Tensor boxes1, Tensor boxes2, str mode) -> Tensor");
  m.def("aligned_box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, str mode) -> (Tensor, Tensor)");
  // -> indices [T, C], distances [T, C]
  m.def(
      "center_topk(Tensor priors, int[] level_sizes, Tensor gt_boxes, Tensor offsets, int k, Tensor? valid, "
      "Tensor? ignored, int[] grid_shapes, float[] grid_geometry) -> (Tensor, Tensor)");
  // -> assigned [B, N], ious [B, N], thresholds [T], num_positives [T]
  m.def(
      "atss_assign(Tensor priors, int[] level_sizes, Tensor gt_boxes, Tensor offsets, int k, Tensor? valid, "
      "Tensor? ignore_boxes, Tensor? ignore_offsets, float ignore_iof_thr, bool ensure_positive, "
      "int[] grid_shapes, float[] grid_geometry) -> (Tensor, Tensor, Tensor, Tensor)");
  // -> labels [B, N], weights [B, N], positive [B, N], boxes [B, N, 4], centerness [B, N], num_positives []
  m.def(
      "gather_targets(Tensor priors, Tensor assigned, Tensor gt_boxes, Tensor gt_labels, Tensor offsets, "
      "int num_classes, float pos_weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // Assigners that go by predictions; CPU alone. Scores [B, N, K] of K classes, boxes [B, N, 4] ->
  // assigned [B, N], ious [B, N], metrics [B, N]
  m.def(
      "task_aligned_assign(Tensor priors, Tensor scores, Tensor boxes, Tensor gt_boxes, Tensor gt_labels, "
      "Tensor offsets, Tensor? valid, int topk, float alpha, float beta, bool are_logits) "
      "-> (Tensor, Tensor, Tensor)");
  // points [N, 4] are (x, y, stride x, stride y), rule is sim_ota or soft_label -> assigned, ious [B, N]
  m.def(
      "dynamic_k_assign(Tensor points, Tensor scores, Tensor boxes, Tensor gt_boxes, Tensor gt_labels, "
      "Tensor? gt_centers, Tensor offsets, Tensor? valid, str rule, int topk, float radius, "
      "float iou_weight, float cls_weight, bool are_logits) -> (Tensor, Tensor)");
  // H heads, G of keys, N tokens, O objects; CPU alone:
  // rows [O, N], query [H, N, D], key [G, N, D] -> products [H, O, N], certainty [H]
  m.def("attention_products(Tensor rows, Tensor query, Tensor key, float scale) -> (Tensor, Tensor)");
}

// Importing atss_ext._C only has to run the registrations above: no Python binding is involved, so one
// wheel serves every CPython from 3.10 on (Py_LIMITED_API).
extern "C" {
#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
PyObject* PyInit__C(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
}

// The schemas of every native op, and the empty module that lets Python import the library.
#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(atss_ext, m) { m.def("aligned_box_iou(Tensor boxes1, Tensor boxes2) -> Tensor"); }

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

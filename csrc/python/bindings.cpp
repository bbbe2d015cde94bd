// The extension module ipr_engine._C: one bind_* function per op, each in its own file.
#include <pybind11/pybind11.h>

#include "bind_errors.h"

namespace py = pybind11;

void bind_counters(py::module_& m);
void bind_decide(py::module_& m);
void bind_decision_json(py::module_& m);
void bind_encoder(py::module_& m);
void bind_plain_policy(py::module_& m);
void bind_recorded_route(py::module_& m);
void bind_request(py::module_& m);
void bind_router(py::module_& m);
void bind_surface_features(py::module_& m);
void bind_tau_path(py::module_& m);
void bind_text_counts(py::module_& m);

// mod_gil_not_used(false): the module needs the interpreter's lock, and a free-threaded Python takes it back when it
// imports this. Tally and LatencyHistogram are exact because one call at a time changes them, and send_unsupported
// writes into a result in place. Work that is long enough to matter runs without the lock (run_released,
// DecidePlan.run).
PYBIND11_MODULE(_C, m, py::mod_gil_not_used(false)) {
  m.doc() = "Per-request CPU work of ipr_engine: decide, tokenise, encode, route; tau's path.";

  py::register_exception_translator([](std::exception_ptr pending) {
    if (pending) ipr::raise_as_python(pending);
  });

  bind_counters(m);
  bind_decide(m);
  bind_decision_json(m);
  bind_encoder(m);
  bind_plain_policy(m);
  bind_recorded_route(m);
  bind_request(m);
  bind_router(m);
  bind_surface_features(m);
  bind_tau_path(m);
  bind_text_counts(m);
}

// break_points and two_tier_choices for Python. ipr_engine/policy/tau_path.py and paths.py wrap them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "bind_arrays.h"
#include "ipr/tau_path.h"

namespace ipr {
namespace {

namespace py = pybind11;

constexpr py::ssize_t kMaxRows = 1 << 24;  // moves are counted in 32 bits

PathTable table_of(py::handle quality, py::handle cost_usd) {
  const ArrayView<double> view(quality);
  IPR_CHECK(view.ndim == 2 && view.shape[0] >= 1 && view.shape[1] >= 1 && view.shape[0] <= kMaxRows,
            "quality: expected (rows, models) float64, C-contiguous, of 1 row and 1 model at least, got ",
            describe(quality));
  const py::ssize_t rows = view.shape[0], models = view.shape[1];
  return {view.data, array_data<double>(cost_usd, "cost_usd", "(rows, models)", {rows, models}), rows, models};
}

const int64_t* order_of(py::handle by_rank, int64_t models) {
  const auto* order = array_data<int64_t>(by_rank, "by_rank", "(models,)", {models});
  std::vector<bool> seen(models);
  for (int64_t k = 0; k < models; ++k) {
    IPR_CHECK(order[k] >= 0 && order[k] < models && !seen[order[k]],
              "by_rank: expected each of 0 to models - 1 once, got ", order[k], " at ", k);
    seen[order[k]] = true;
  }
  return order;
}

// (worth, row, before, after), each (moves,), then (first, last), each (rows,)
py::tuple py_break_points(py::handle quality, py::handle cost_usd, py::handle by_rank) {
  const PathTable table = table_of(quality, cost_usd);
  const int64_t* order = order_of(by_rank, table.models);
  py::array_t<int64_t> first(table.rows), last(table.rows);
  int64_t *first_at = first.mutable_data(), *last_at = last.mutable_data();
  std::vector<PathMove> moves;
  {
    const py::gil_scoped_release released;
    moves = break_points(table, order, first_at, last_at);
  }
  const auto size = static_cast<py::ssize_t>(moves.size());
  py::array_t<double> worth(size);
  py::array_t<int64_t> row(size), before(size), after(size);
  double* worth_at = worth.mutable_data();
  int64_t *row_at = row.mutable_data(), *before_at = before.mutable_data(), *after_at = after.mutable_data();
  for (py::ssize_t i = 0; i < size; ++i) {
    worth_at[i] = moves[i].worth;
    row_at[i] = moves[i].row;
    before_at[i] = moves[i].before;
    after_at[i] = moves[i].after;
  }
  return py::make_tuple(worth, row, before, after, first, last);
}

// (realised, cost_usd), each (worths,), and count (worths, models)
py::tuple py_two_tier_choices(py::handle quality, py::handle cost_usd, py::handle realised, py::handle again_quality,
                              py::handle again_cost_usd, py::handle again_realised, py::handle by_rank,
                              py::handle worth, double below) {
  const PathTable first = table_of(quality, cost_usd);
  const std::vector<py::ssize_t> shape = {first.rows, first.models};
  const PathTable second{array_data<double>(again_quality, "again_quality", "(rows, models)", shape),
                         array_data<double>(again_cost_usd, "again_cost_usd", "(rows, models)", shape), first.rows,
                         first.models};
  const PathTier tier{first, array_data<double>(realised, "realised", "(rows, models)", shape)};
  const PathTier again{second, array_data<double>(again_realised, "again_realised", "(rows, models)", shape)};
  const int64_t* order = order_of(by_rank, first.models);
  const ArrayView<double> worths(worth);
  IPR_CHECK(worths.ndim == 1, "worth: expected (worths,) float64, C-contiguous, got ", describe(worth));
  const py::ssize_t size = worths.shape[0];
  IPR_CHECK(std::all_of(worths.data, worths.data + size, [](double value) { return value > 0; }),
            "worth: expected values above 0");
  py::array_t<double> reached(size), spent(size);
  py::array_t<int64_t> count({size, static_cast<py::ssize_t>(first.models)});
  double *reached_at = reached.mutable_data(), *spent_at = spent.mutable_data();
  int64_t* count_at = count.mutable_data();
  {
    const py::gil_scoped_release released;
    two_tier_choices(tier, again, order, worths.data, size, below, reached_at, spent_at, count_at);
  }
  return py::make_tuple(reached, spent, count);
}

}  // namespace
}  // namespace ipr

void bind_tau_path(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("break_points", &ipr::py_break_points, py::arg("quality"), py::arg("cost_usd"), py::arg("by_rank"));
  m.def("two_tier_choices", &ipr::py_two_tier_choices, py::arg("quality"), py::arg("cost_usd"), py::arg("realised"),
        py::arg("again_quality"), py::arg("again_cost_usd"), py::arg("again_realised"), py::arg("by_rank"),
        py::arg("worth"), py::arg("below"));
}

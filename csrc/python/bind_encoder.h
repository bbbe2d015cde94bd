// What Python holds of a static encoder: the encoder, and the array it borrows.
#pragma once

#include <pybind11/numpy.h>

#include "ipr/static_encoder.h"

namespace ipr {

struct PyStaticEncoder {
  pybind11::array table;
  StaticEncoder encoder;
};

}  // namespace ipr

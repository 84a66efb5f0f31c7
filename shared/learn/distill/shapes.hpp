// What the files of distill/ share. Private to it.
#pragma once

#include <string>

#include "shared/base/error.hpp"
#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

inline void expect_shape(bool fits, const std::string& what) {
  if (!fits) throw Error(Errc::internal, "distillation: " + what);
}

inline Tensor softened(const Tensor& logits, double temperature) {
  return temperature == 1 ? logits : logits / temperature;
}

}  // namespace headstart::learn

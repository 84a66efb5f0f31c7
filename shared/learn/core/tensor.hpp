// Learn: tensors in, tensors out. This room knows no sockets, no peers, no clock and no run folder.
#pragma once

#include <ATen/core/Tensor.h>

namespace headstart::learn {

using at::Tensor;

}  // namespace headstart::learn

// Models whose layers compute in bfloat16 where that is safe, with parameters, gradients and sums in float32.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// What convolutions and linear layers compute in.
enum class Precision {
  float32,
  bf16,           ///< bfloat16, where the processor or the GPU has instructions for it.
  bf16_emulated,  ///< The same on any processor, slower than float32 where it has none.
};
inline constexpr std::pair<Precision, std::string_view> precision_words[] = {
    {Precision::float32, "float32"}, {Precision::bf16, "bf16"}, {Precision::bf16_emulated, "bf16-emulated"}};

/// Throws Error(usage), saying what to set, where `device` is a processor without instructions for Precision::bf16. Of
/// a GPU it is not checked: those before Ampere emulate it.
void require_precision(Precision precision, c10::Device device);

/// `model` with forward(), forward_heads() and features() under LibTorch's autocast and images channels last; they
/// return float32. All else is the model's own, its state included. With Precision::float32 the model itself. Within
/// one instruction set the bits of a result repeat, as those of float32 do.
std::unique_ptr<Model> in_precision(std::unique_ptr<Model> model, Precision precision);

}  // namespace headstart::learn

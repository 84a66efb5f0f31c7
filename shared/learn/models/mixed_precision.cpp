#include "shared/learn/models/mixed_precision.hpp"

#include <utility>
#include <vector>

#include <ATen/autocast_mode.h>
#include <fmt/format.h>
#include <torch/types.h>
#include <torch/version.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

// LibTorch 2.4 has one function for all devices, and deprecates those of each.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
bool is_enabled(c10::DeviceType device) { return at::autocast::is_autocast_enabled(device); }
void enable(c10::DeviceType device, bool on) { at::autocast::set_autocast_enabled(device, on); }
void use_bfloat16(c10::DeviceType device) { at::autocast::set_autocast_dtype(device, c10::kBFloat16); }
#else
bool is_enabled(c10::DeviceType device) {
  return device == c10::kCPU ? at::autocast::is_cpu_enabled() : at::autocast::is_enabled();
}
void enable(c10::DeviceType device, bool on) {
  device == c10::kCPU ? at::autocast::set_cpu_enabled(on) : at::autocast::set_enabled(on);
}
void use_bfloat16(c10::DeviceType device) {
  device == c10::kCPU ? at::autocast::set_autocast_cpu_dtype(c10::kBFloat16)
                      : at::autocast::set_autocast_gpu_dtype(c10::kBFloat16);
}
#endif

/// Autocast to bfloat16 in this thread. The copies of parameters that it makes are forgotten at its end: the next step
/// changes what they were copied from.
class Autocast {
 public:
  explicit Autocast(c10::DeviceType device) : device_(device), was_enabled_(is_enabled(device)) {
    use_bfloat16(device_);
    enable(device_, true);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    enable(device_, was_enabled_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  c10::DeviceType device_;
  bool was_enabled_;
};

bool has_bf16_instructions() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

Tensor channels_last(const Tensor& x) { return x.dim() == 4 ? x.contiguous(at::MemoryFormat::ChannelsLast) : x; }

class MixedPrecisionModel final : public Model {
 public:
  explicit MixedPrecisionModel(std::unique_ptr<Model> model) : model_(std::move(model)) {}

  Tensor forward(const Tensor& x) override {
    const Autocast autocast(x.device().type());
    return model_->forward(channels_last(x)).to(c10::kFloat);
  }
  [[nodiscard]] std::int64_t num_heads() const override { return model_->num_heads(); }
  std::vector<Tensor> forward_heads(const Tensor& x) override {
    const Autocast autocast(x.device().type());
    std::vector<Tensor> logits = model_->forward_heads(channels_last(x));
    for (Tensor& head : logits) head = head.to(c10::kFloat);
    return logits;
  }
  Tensor features(const Tensor& x) override {
    const Autocast autocast(x.device().type());
    return model_->features(channels_last(x)).to(c10::kFloat);
  }
  [[nodiscard]] bool shows_features() const override { return model_->shows_features(); }
  [[nodiscard]] std::string head_prefix(Head head) const override { return model_->head_prefix(head); }
  std::vector<Tensor> parameters() override { return model_->parameters(); }
  std::vector<NamedTensor> named_state() override { return model_->named_state(); }
  void set_training(bool training) override { model_->set_training(training); }
  void to(c10::Device device) override { model_->to(device); }
  [[nodiscard]] bool draws_globally() const override { return model_->draws_globally(); }
  [[nodiscard]] StateDict complete(const StateDict& state) override { return model_->complete(state); }
  [[nodiscard]] StateDict exchanged_part(const StateDict& state) override { return model_->exchanged_part(state); }

 private:
  std::unique_ptr<Model> model_;
};

}  // namespace

void require_precision(Precision precision, c10::Device device) {
  if (precision != Precision::bf16 || !device.is_cpu() || has_bf16_instructions()) return;
  throw Error(
      Errc::usage,
      "precision: bf16 was asked for, and this processor has no instructions for it (AVX-512 BF16): it would be "
      "slower than float32. Use precision=float32, or bf16-emulated to have it all the same");
}

std::unique_ptr<Model> in_precision(std::unique_ptr<Model> model, Precision precision) {
  if (precision == Precision::float32) return model;
  return std::make_unique<MixedPrecisionModel>(std::move(model));
}

}  // namespace headstart::learn

#include "shared/learn/core/state.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::learn {

namespace {

struct TypeNames {
  c10::ScalarType dtype;
  std::string_view safetensors;
  std::string_view plain;
};

constexpr TypeNames supported_types[] = {
    {c10::ScalarType::Double, "F64", "float64"}, {c10::ScalarType::Float, "F32", "float32"},
    {c10::ScalarType::Half, "F16", "float16"},   {c10::ScalarType::BFloat16, "BF16", "bfloat16"},
    {c10::ScalarType::Long, "I64", "int64"},     {c10::ScalarType::Int, "I32", "int32"},
    {c10::ScalarType::Short, "I16", "int16"},    {c10::ScalarType::Char, "I8", "int8"},
    {c10::ScalarType::Byte, "U8", "uint8"},      {c10::ScalarType::Bool, "BOOL", "bool"},
};

const TypeNames* names_of(c10::ScalarType dtype) {
  const auto* found = std::ranges::find(supported_types, dtype, &TypeNames::dtype);
  return found == std::end(supported_types) ? nullptr : found;
}

/// "float32 [10, 64]".
std::string type_and_shape(const TensorSpec& spec) {
  return fmt::format("{} [{}]", type_name(spec.dtype), fmt::join(spec.shape, ", "));
}

/// The canonical order of a state.
bool precedes(c10::ScalarType dtype_a, const std::string& name_a, c10::ScalarType dtype_b, const std::string& name_b) {
  const std::size_t size_a = c10::elementSize(dtype_a);
  const std::size_t size_b = c10::elementSize(dtype_b);
  return size_a != size_b ? size_a > size_b : name_a < name_b;
}

/// Names may repeat across element sizes, which sorting would not bring together.
template <class Range, class Name>
void refuse_repeated_names(const Range& range, Name name) {
  std::vector<std::string_view> names;
  for (const auto& element : range) names.emplace_back(std::invoke(name, element));
  std::ranges::sort(names);
  const auto repeated = std::ranges::adjacent_find(names);
  if (repeated != names.end()) throw Error(Errc::data, fmt::format("tensor '{}': the name occurs twice", *repeated));
}

TensorSpec spec_of(const NamedTensor& named) {
  return {named.name, named.tensor.scalar_type(), named.tensor.sizes().vec()};
}

const TensorSpec* find_in(const std::vector<TensorSpec>& tensors, const std::string& name) {
  const auto found = std::ranges::find(tensors, name, &TensorSpec::name);
  return found == tensors.end() ? nullptr : &*found;
}

}  // namespace

std::uint64_t TensorSpec::num_elements() const {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1},
                         [](std::uint64_t product, std::int64_t n) { return product * static_cast<std::uint64_t>(n); });
}

std::uint64_t TensorSpec::num_bytes() const { return num_elements() * c10::elementSize(dtype); }

Schema::Schema(std::vector<TensorSpec> tensors) : tensors_(std::move(tensors)) {
  for (const TensorSpec& spec : tensors_) {
    if (names_of(spec.dtype) == nullptr) {
      throw Error(Errc::data, fmt::format("tensor '{}': a state cannot hold tensors of type {}", spec.name,
                                          c10::toString(spec.dtype)));
    }
    if (std::ranges::any_of(spec.shape, [](std::int64_t n) { return n < 0; })) {
      throw Error(Errc::data, fmt::format("tensor '{}': negative size in {}", spec.name, type_and_shape(spec)));
    }
  }
  refuse_repeated_names(tensors_, &TensorSpec::name);
  std::ranges::sort(
      tensors_, [](const TensorSpec& a, const TensorSpec& b) { return precedes(a.dtype, a.name, b.dtype, b.name); });
}

Schema::Schema(std::vector<TensorSpec> tensors, std::set<std::string> parameters) : Schema(std::move(tensors)) {
  parameters_ = std::move(parameters);
}

Role Schema::role_of(const TensorSpec& tensor) const {
  if (!c10::isFloatingType(tensor.dtype)) return Role::integer;
  return !parameters_ || parameters_->contains(tensor.name) ? Role::parameter : Role::buffer;
}

std::uint64_t Schema::num_bytes() const {
  std::uint64_t sum = 0;
  for (const TensorSpec& spec : tensors_) sum += spec.num_bytes();
  return sum;
}

std::string Schema::digest() const {
  Sha256 sha;
  for (const TensorSpec& spec : tensors_) {
    // The length keeps a name that holds a line break from reading as two tensors.
    sha.update(fmt::format("{} {} {} [{}]\n", spec.name.size(), spec.name, dtype_name(spec.dtype),
                           fmt::join(spec.shape, ",")));
  }
  return hex(sha.finish());
}

std::optional<std::string> Schema::difference_from(const Schema& expected) const {
  for (const TensorSpec& wanted : expected.tensors_) {
    const TensorSpec* present = find_in(tensors_, wanted.name);
    if (present == nullptr) {
      return fmt::format("tensor '{}': expected {}, got none", wanted.name, type_and_shape(wanted));
    }
    if (*present != wanted) {
      return fmt::format("tensor '{}': expected {}, got {}", wanted.name, type_and_shape(wanted),
                         type_and_shape(*present));
    }
  }
  for (const TensorSpec& present : tensors_) {
    if (find_in(expected.tensors_, present.name) == nullptr) {
      return fmt::format("tensor '{}': expected none of that name, got {}", present.name, type_and_shape(present));
    }
  }
  return std::nullopt;
}

std::string_view dtype_name(c10::ScalarType dtype) {
  if (const TypeNames* names = names_of(dtype)) return names->safetensors;
  throw Error(Errc::data, fmt::format("a state cannot hold tensors of type {}", c10::toString(dtype)));
}

std::optional<c10::ScalarType> dtype_of(std::string_view name) {
  const auto* found = std::ranges::find(supported_types, name, &TypeNames::safetensors);
  if (found == std::end(supported_types)) return std::nullopt;
  return found->dtype;
}

bool can_hold(c10::ScalarType dtype) { return names_of(dtype) != nullptr; }

std::string type_name(c10::ScalarType dtype) {
  const TypeNames* names = names_of(dtype);
  return names != nullptr ? std::string(names->plain) : c10::toString(dtype);
}

StateDict::StateDict(std::vector<NamedTensor> tensors) : tensors_(std::move(tensors)) {
  refuse_repeated_names(tensors_, &NamedTensor::name);
  for (NamedTensor& named : tensors_) named.tensor = named.tensor.detach().to(c10::kCPU).contiguous();
  std::ranges::sort(tensors_, [](const NamedTensor& a, const NamedTensor& b) {
    return precedes(a.tensor.scalar_type(), a.name, b.tensor.scalar_type(), b.name);
  });
}

StateDict StateDict::empty(const Schema& schema) {
  std::vector<NamedTensor> tensors;
  for (const TensorSpec& spec : schema.tensors()) {
    tensors.push_back({spec.name, at::empty(spec.shape, at::TensorOptions(spec.dtype))});
  }
  return StateDict(std::move(tensors));
}

StateDict StateDict::in_one_block(const Schema& schema) {
  const Tensor block = at::empty({static_cast<std::int64_t>(schema.num_bytes())}, at::kByte);
  auto* const data = static_cast<std::byte*>(block.data_ptr());
  prefer_large_pages(data, block.nbytes());
  std::vector<NamedTensor> tensors;
  std::uint64_t offset = 0;
  for (const TensorSpec& spec : schema.tensors()) {
    // The deleter holds the block.
    tensors.push_back({spec.name, at::from_blob(
                                      data + offset, spec.shape, [block](void*) {}, spec.dtype)});
    offset += spec.num_bytes();
  }
  return StateDict(std::move(tensors));
}

const Tensor& StateDict::at(const std::string& name) const {
  const auto found = std::ranges::find(tensors_, name, &NamedTensor::name);
  if (found == tensors_.end()) throw Error(Errc::data, fmt::format("tensor '{}': not in this state", name));
  return found->tensor;
}

Schema StateDict::schema() const {
  std::vector<TensorSpec> specs;
  for (const NamedTensor& named : tensors_) specs.push_back(spec_of(named));
  return Schema(std::move(specs));
}

StateDict StateDict::clone() const {
  StateDict copy;
  for (const auto& [name, tensor] : tensors_) copy.tensors_.push_back({name, tensor.clone()});
  return copy;
}

bool bitwise_equal(const StateDict& a, const StateDict& b) {
  return std::ranges::equal(a.tensors(), b.tensors(), [](const NamedTensor& left, const NamedTensor& right) {
    return spec_of(left) == spec_of(right) &&
           (left.tensor.nbytes() == 0 ||
            std::memcmp(left.tensor.data_ptr(), right.tensor.data_ptr(), left.tensor.nbytes()) == 0);
  });
}

}  // namespace headstart::learn

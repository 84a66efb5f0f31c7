// A model's state as named tensors, and its schema: what client and server agree on once.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace headstart::learn {

using at::Tensor;

struct TensorSpec {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::vector<std::int64_t> shape;

  [[nodiscard]] std::uint64_t num_elements() const;
  [[nodiscard]] std::uint64_t num_bytes() const;
  friend bool operator==(const TensorSpec&, const TensorSpec&) = default;
};

/// What a tensor is to its model.
enum class Role {
  parameter,  ///< Floating-point, and trained: what a server optimiser or a local objective acts on.
  buffer,     ///< Floating-point otherwise, as BatchNorm's statistics. Averaged, whatever the optimiser.
  integer,    ///< Counters and flags.
};

/// Names, shapes and types of a state in its canonical order: element size descending, then name
/// (the order in which safetensors lays tensors out). The raw bytes of a state are the tensors' little-endian
/// bytes in that order, without padding.
class Schema {
 public:
  Schema() = default;
  /// Sorts. Every floating-point tensor is a parameter. Throws Error(data): a name twice, a type not supported.
  explicit Schema(std::vector<TensorSpec> tensors);
  /// Those named in `parameters` alone are parameters. Throws likewise.
  Schema(std::vector<TensorSpec> tensors, std::set<std::string> parameters);

  [[nodiscard]] const std::vector<TensorSpec>& tensors() const { return tensors_; }
  /// Of one of tensors().
  [[nodiscard]] Role role_of(const TensorSpec& tensor) const;
  [[nodiscard]] std::uint64_t num_bytes() const;
  /// SHA-256 over names, types and shapes, in hexadecimal.
  [[nodiscard]] std::string digest() const;
  /// A sentence on the first difference ("tensor 'fc.weight': expected float32 [10, 64], got float32 [100, 64]").
  [[nodiscard]] std::optional<std::string> difference_from(const Schema& expected) const;
  /// Names, shapes and types: what the bytes mean. Roles are what a model makes of them, and a bare state has none.
  friend bool operator==(const Schema& a, const Schema& b) { return a.tensors_ == b.tensors_; }

 private:
  std::vector<TensorSpec> tensors_;
  std::optional<std::set<std::string>> parameters_;  ///< Empty: all that are floating-point.
};

/// The name safetensors gives a type ("F32", "I64", ...). Throws Error(data) for a type that no state may have.
/// Supported: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL.
std::string_view dtype_name(c10::ScalarType dtype);
std::optional<c10::ScalarType> dtype_of(std::string_view name);
/// Whether a state may have tensors of that type.
bool can_hold(c10::ScalarType dtype);
/// What messages call a type: "float32"; LibTorch's name for a type that no state may have.
std::string type_name(c10::ScalarType dtype);

struct NamedTensor {
  std::string name;
  Tensor tensor;  ///< Contiguous, on the CPU, no gradient.
};

/// Named tensors in canonical order. Copies of a StateDict share their tensors; clone() does not.
class StateDict {
 public:
  StateDict() = default;
  /// Sorts; moves each tensor to contiguous CPU memory where it is not.
  explicit StateDict(std::vector<NamedTensor> tensors);
  /// Uninitialised tensors of that schema.
  static StateDict empty(const Schema& schema);
  /// The same in one block of memory, one tensor behind the other without padding: their raw bytes as they are
  /// (Schema). Each tensor keeps the whole block alive.
  static StateDict in_one_block(const Schema& schema);

  [[nodiscard]] const std::vector<NamedTensor>& tensors() const { return tensors_; }
  /// Throws Error(data) where there is none of that name.
  [[nodiscard]] const Tensor& at(const std::string& name) const;
  [[nodiscard]] Schema schema() const;
  [[nodiscard]] StateDict clone() const;
  [[nodiscard]] bool is_empty() const { return tensors_.empty(); }

 private:
  std::vector<NamedTensor> tensors_;
};

/// Same schema and the same bits in every tensor.
bool bitwise_equal(const StateDict& a, const StateDict& b);

}  // namespace headstart::learn

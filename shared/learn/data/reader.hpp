// What a data set is, and how it is read. One file a format, and one row of data_readers() a data set. Private to
// data/, but for who adds a reader of his own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "shared/learn/data/data_set.hpp"

namespace headstart::learn {

struct DataReader {
  std::string_view name;      ///< "mnist": the word of data.set.
  std::string_view sentence;  ///< For the help, after "NAME: ".
  std::string_view files;     ///< What its folder holds, for the message that asks for it.
  /// One split, as stored. `reader`: this row; `folder`: source.path, or the default. Throws Error(data), naming file
  /// and offset; whether a sample has a shape that can be is checked for all readers.
  Dataset (*load)(const DataReader& reader, const std::filesystem::path& folder, const DataSource& source,
                  Split split) = nullptr;
  // What is known before the files are read; empty: they say it.
  std::span<const std::string_view> classes = {};  ///< Names by label.
  std::span<const std::int64_t> shape = {};        ///< Of a sample.
  std::span<const double> mean = {};               ///< Per channel.
  std::span<const double> deviation = {};          ///< Likewise.
  std::string_view default_folder = {};            ///< Empty: data.path must be set.
  std::string_view package = {};                   ///< The Debian package that has the default folder.
  /// For a set of which settings may say what is known: a data set of no samples, or nothing. Null: they say nothing.
  std::optional<Dataset> (*told)(const DataReader& reader, const DataSource& source) = nullptr;

  /// Of the classes and constants that are known.
  [[nodiscard]] Dataset dataset(Tensor samples, Tensor labels) const;
};

extern const DataReader fashion_mnist_reader, mnist_reader, cifar10_reader, cifar100_reader, images_reader,
    tensors_reader, csv_reader;

}  // namespace headstart::learn

// Data sets in memory: images, labels, and the constants that normalise them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/learn/core/task.hpp"
#include "shared/learn/core/tensor.hpp"
#include "shared/learn/data/table.hpp"

namespace headstart::learn {

/// What training and evaluation see.
struct Samples {
  Tensor x;  ///< float32 [n, ...], of any shape of a sample, normalised.
  Tensor y;  ///< int64 [n]; undefined for unlabeled samples.

  [[nodiscard]] std::int64_t size() const { return x.defined() ? x.size(0) : 0; }
  [[nodiscard]] bool is_labeled() const { return y.defined(); }
  /// indices: int64 [m].
  [[nodiscard]] Samples select(const Tensor& indices) const;
  [[nodiscard]] Samples without_labels() const { return {x, {}}; }
};

/// What a data set knows of its classes.
enum class ClassSource {
  stated,   ///< All of them: the set is a known one, or its meta.json says so.
  folders,  ///< Those that have a folder or stand in a list, by their names; others may be missing.
  labels,   ///< Only the labels that occur.
};
inline constexpr std::pair<ClassSource, std::string_view> class_source_words[] = {
    {ClassSource::stated, "stated"}, {ClassSource::folders, "folders"}, {ClassSource::labels, "labels"}};

/// One split of a data set, as stored. Holds uint8 images so that a process pays float32 only for what it selects.
struct Dataset {
  std::string name;
  Tensor images;  ///< The samples, images or others: uint8 [n, ...] in 0..255, or float32 used as it is.
  Tensor labels;  ///< int64 [n] in 0..num_classes-1.
  std::int64_t num_classes = 0;
  std::vector<double> mean;               ///< Per channel (first dimension of a sample), scaled to 0..1; empty: none.
  std::vector<double> deviation;          ///< Likewise, > 0.
  std::string paths_digest;               ///< SHA-256 of the files' paths below the split; empty: a sample is no file.
  std::vector<std::string> classes = {};  ///< Names by label; empty: it has none.
  ClassSource class_source = ClassSource::stated;
  std::string labels_file = {};  ///< The file whose elements the labels are; empty: there is none.
  Tensor places = {};            ///< int64 [n]: of part(), where its samples stand in the split; undefined: all of it.
  /// The cells that the samples are made of, of a table; null: it is none. Until a run's terms say what its columns are
  /// (in_terms), samples and labels may be zeros.
  std::shared_ptr<const Table> table = {};
  TableTerms columns = {};  ///< How `table` became `images`, where a missing value is NaN; empty: it has not yet.

  [[nodiscard]] std::int64_t size() const { return labels.size(0); }
  [[nodiscard]] Task task() const;
  /// `indices` as int64 [m]. Throws Error(data): an index out of range.
  [[nodiscard]] Tensor rows(const std::vector<std::int64_t>& indices) const;
  /// (images / 255 - mean) / deviation at `indices`, with labels; missing values are filled. Throws as rows() does.
  [[nodiscard]] Samples select(const std::vector<std::int64_t>& indices) const;
  [[nodiscard]] Samples all() const;
  /// The samples at `indices` as a data set of their own, as stored. Throws as rows() does.
  [[nodiscard]] Dataset part(const std::vector<std::int64_t>& indices) const;
  /// SHA-256 over size, labels, and paths where samples are files: what a manifest is checked against.
  [[nodiscard]] std::string digest() const;
};

/// float32 values, uint8 ones divided by 255, as a model takes them, in place: [n, channels, ...] less the mean of
/// their channel, over its deviation, where there are any; a missing value, NaN, is filled as `missing` says.
void normalise(Tensor& values, const std::vector<double>& mean, const std::vector<double>& deviation,
               MissingValues missing);

/// Where a data set comes from.
struct DataSource {
  std::string set = "fashion-mnist";  ///< One of data_set_words().
  std::string path;                   ///< Folder; empty: the distribution's, for fashion-mnist.
  std::int64_t side = 32;             ///< Of `images`, after resizing.
  std::int64_t channels = 3;          ///< Of `images`: 1 or 3.
  std::int64_t list = 1;              ///< Of `images` with SUN397's lists: Training_NN.txt and Testing_NN.txt.
  std::string schema = {};            ///< Of `csv`: file that says what the columns are (read_schema).
  ColumnChoice columns = {};          ///< Of `csv` without a schema; a silo may leave both to the run.
  MissingValues missing = MissingValues::refuse;  ///< Of `csv`.
};
void declare_fields(Fields& fields, const std::string& prefix, DataSource& source);

enum class Split { train, test };

/// Loads one split. Throws Error(data) naming file and offset: missing, truncated, wrong magic, labels out of range, a
/// sample beyond the bounds of task.hpp;
/// Error(usage): an unknown set (with the nearest), or a path needed and not given.
///   fashion-mnist, mnist   IDX, plain or .gz: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-...
///   cifar10                data_batch_1..5.bin, test_batch.bin (3,073 bytes a record)
///   cifar100               train.bin, test.bin (3,074 bytes a record; the fine label)
///   images                 train/CLASS/*.png, .jpg, .jpeg and test/CLASS/...; or SUN397's tree, SUN397/a/abbey/x.jpg,
///                          with its lists Training_01.txt and Testing_01.txt beside it, in Partitions/ or in the tree.
///                          Classes and images are in the order of their paths' bytes. The classes are those of both
///                          splits, one of which may lack some or be absent; a class folder may be empty. The middle
///                          square of an image is resized to `side` by a triangle filter that covers all its pixels;
///                          colours become brightness or gray is tripled, as `channels` says; alpha is dropped, EXIF's
///                          orientation not heeded. Normalised with the usual constants of ImageNet. No image beyond 50
///                          million pixels or 100 MB
///   tensors                train-images.npy, train-labels.npy (and test-...): uint8 or float32 [n, features], [n,h,w]
///                          (images of one channel), [n,c,h,w] or of up to 8 dimensions; integer labels [n]; optional
///                          meta.json {"classes" (names) or "num_classes", "mean", "deviation", "shape" (of a sample,
///                          where it is not the array's: [channels, length])}; without it there are as many classes as
///                          the labels of both splits show
///   csv                    train.csv and test.csv, as parse_table() reads them. Columns and classes are those of
///                          data.schema, or else what data.label and both files show; without either the table is kept
///                          as it is, for in_terms()
Dataset load_dataset(const DataSource& source, Split split);

struct DataReader;
/// The same by a reader that need not be in the table.
Dataset load_dataset(const DataSource& source, Split split, const DataReader& reader);

/// One row a data set, in the order of the help.
std::span<const DataReader* const> data_readers();
/// Their names.
std::vector<std::string> data_set_words();

/// Shape, classes, type and constants of a known set (not `tensors` or `images`; `csv` with a schema) without its
/// files: a data set of no samples; nothing for a set whose files say it. Throws Error(usage): an unknown set;
/// Error(data): a schema that cannot be read.
std::optional<Dataset> known_dataset(const DataSource& source);

/// Writes the samples at `indices` so that the set `tensors` in `folder` is these samples, with the classes and the
/// normalisation of `dataset`. Makes the folder; the labels come last, so that a split with labels is whole. Throws
/// Error(storage): labels of this split are there already, or it cannot be written; Error(data): no such index.
void save_tensors(const Dataset& dataset, const std::vector<std::int64_t>& indices, Split split,
                  const std::filesystem::path& folder);

}  // namespace headstart::learn

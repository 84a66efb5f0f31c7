// Which of many like events are worth a line: a flood must not fill a log.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace headstart {

/// Counts events of one kind. The first hundred are told, then the 128th, 256th, 512th, ...
class LogSampler {
 public:
  /// Counts one more; whether it is told.
  bool count() {
    ++count_;
    return !is_sampled() || (count_ & (count_ - 1)) == 0;
  }
  /// Whether there are more than are told one by one.
  [[nodiscard]] bool is_sampled() const { return count_ > 100; }
  [[nodiscard]] std::size_t count_so_far() const { return count_; }

 private:
  std::size_t count_ = 0;
};

/// The same by whom the events come from: each is told for itself, so that a flood from one does not hide another.
class LogSamplers {
 public:
  /// Counts one more from `whom`; whether it is told.
  bool count(const std::string& whom) {
    ++num_in_all_;
    const bool has_its_own = counts_.contains(whom) || counts_.size() < max_apart;
    return counts_[has_its_own ? whom : std::string()].count();
  }
  /// What `whom`, who was counted before, is counted with.
  [[nodiscard]] const LogSampler& of(const std::string& whom) const {
    const auto own = counts_.find(whom);
    return own != counts_.end() ? own->second : counts_.at("");
  }
  [[nodiscard]] std::uint64_t num_in_all() const { return num_in_all_; }

 private:
  /// Beyond it all others are told as one.
  static constexpr std::size_t max_apart = 4096;

  std::uint64_t num_in_all_ = 0;
  std::map<std::string, LogSampler> counts_;
};

}  // namespace headstart

// Which of many like events are worth a line: a flood must not fill a log.
#pragma once

#include <cstddef>

namespace headstart {

/// Counts events of one kind. The first hundred are told, then the 128th, 256th, 512th, ...
class Told {
 public:
  /// Counts one more; whether it is told.
  bool count() {
    ++count_;
    return !is_thinned_out() || (count_ & (count_ - 1)) == 0;
  }
  /// Whether there are more than are told one by one.
  [[nodiscard]] bool is_thinned_out() const { return count_ > 100; }
  [[nodiscard]] std::size_t so_far() const { return count_; }

 private:
  std::size_t count_ = 0;
};

}  // namespace headstart

#include "shared/base/names.hpp"

#include <doctest/doctest.h>

namespace headstart {
namespace {

TEST_CASE("client names are safe in file names and logs") {
  for (const char* good : {"a", "silo-3", "St.Mary_2", "0"}) CHECK(is_valid_client_name(good));
  for (const char* bad : {"", "-a", ".hidden", "a/b", "a b", "..", "ü", "a\n"}) CHECK_FALSE(is_valid_client_name(bad));
  CHECK(is_valid_client_name(std::string(64, 'x')));
  CHECK_FALSE(is_valid_client_name(std::string(65, 'x')));
}

TEST_CASE("the nearest name is the one with the fewest edits, or none") {
  const std::vector<std::string> names = {"train.lr", "train.epochs", "model.name"};
  CHECK(nearest("train.lt", names) == "train.lr");
  CHECK(nearest("epochs", names).empty());
  CHECK(nearest("model.nam", names) == "model.name");
  CHECK(nearest("zzz", names).empty());
  CHECK(nearest("x", {}).empty());
  CHECK(nearest(std::string(10'000'000, 'x') + "train.lr", names).empty());
}

}  // namespace
}  // namespace headstart

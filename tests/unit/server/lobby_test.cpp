#include "server/admission/lobby.hpp"

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

TEST_CASE("the lobby fills with different names, in name order") {
  Lobby lobby(2);
  CHECK_FALSE(lobby.enter("b"));
  CHECK_FALSE(lobby.is_complete());
  CHECK(lobby.enter("b")->code == RefusalCode::name_taken);
  CHECK_FALSE(lobby.enter("a"));
  CHECK(lobby.is_complete());
  CHECK(lobby.names() == std::vector<std::string>{"a", "b"});
  CHECK(lobby.enter("c")->code == RefusalCode::full);
}

TEST_CASE("who leaves makes room, for the same name too; after the start nobody enters") {
  Lobby lobby(1);
  CHECK_FALSE(lobby.enter("a"));
  lobby.leave("a");
  CHECK_FALSE(lobby.enter("a"));
  lobby.leave("a");
  lobby.close();
  CHECK(lobby.enter("a")->code == RefusalCode::started);
}

}  // namespace
}  // namespace headstart::server

#include "client/peer/peers_file.hpp"

#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "tests/support/throws.hpp"

namespace headstart::peer {
namespace {

using nlohmann::json;

json four_members() {
  return {{"data", {{"set", "fashion-mnist"}}},
          {"model", {{"second_head", true}}},
          {"members",
           {{{"name", "a"}, {"address", "wss://a.example:1"}},
            {{"name", "b"}, {"address", "wss://b.example:1"}},
            {{"name", "c"}, {"address", "wss://c.example:1"}},
            {{"name", "d"}}}}};
}

std::string refusal(const json& document) {
  return test::error_of(Errc::usage, [&] { (void)PeersFile::parse(document, "peers.json"); });
}

TEST_CASE("peers.json: graph, neighbours, and who opens a connection") {
  const PeersFile file = PeersFile::parse(four_members(), "peers.json");
  CHECK((file.neighbours_of("b") == std::vector<std::string>{"a", "c", "d"}));
  CHECK(file.dialler_of("b", "a") == "a");  // both listen: the smaller name
  CHECK(file.dialler_of("a", "d") == "d");  // d does not
  CHECK(file.terms().task.num_classes == 10);
  CHECK((file.terms().task.shape == std::vector<std::int64_t>{1, 28, 28}));
  CHECK(test::error_of(Errc::usage, [&] { (void)file.member("e"); }) ==
        "'e' is no member of this run; its members are a, b, c, d");
}

TEST_CASE("peers.json: edges by name") {
  json document = four_members();
  document["edges"] = json::array({json::array({"b", "a"}), json::array({"b", "c"}), json::array({"d", "c"})});
  const PeersFile file = PeersFile::parse(document, "peers.json");
  CHECK((file.neighbours_of("c") == std::vector<std::string>{"b", "d"}));
  CHECK((peer_in(file, "c").edges ==
         std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"b", "c"}, {"c", "d"}}));
}

TEST_CASE("peers.json: what cannot be is refused with the place and the reason") {
  json document = four_members();
  SUBCASE("a graph in pieces") {
    document["edges"] = json::array({json::array({"a", "b"}), json::array({"c", "d"})});
    CHECK(refusal(document) == "peers.json: the graph is in 2 pieces: a, b | c, d; add edges that join them");
  }
  SUBCASE("an edge to nobody") {
    document["edges"] = json::array({json::array({"a", "b"}), json::array({"b", "x"})});
    CHECK(refusal(document) == "peers.json: the edge b - x leads to 'x', which is no member");
  }
  SUBCASE("an edge to itself") {
    document["edges"] = json::array({json::array({"a", "a"})});
    CHECK(refusal(document) == "peers.json: the edge a - a leads from a member to itself");
  }
  SUBCASE("an edge twice") {
    document["edges"] = json::array({json::array({"a", "b"}), json::array({"b", "a"})});
    CHECK(refusal(document) == "peers.json: the edge b - a is named twice");
  }
  SUBCASE("an edge that is none") {
    document["edges"] = json::array({json::array({"a", "b"}), "c"});
    CHECK(refusal(document) == "peers.json: edges[1]: expected two names of members");
  }
  SUBCASE("two of one name") {
    document["members"][1]["name"] = "a";
    CHECK(refusal(document) == "peers.json: two members are called 'a'; each has a name of its own");
  }
  SUBCASE("an edge where nobody listens") {
    document["members"][2].erase("address");
    CHECK(refusal(document) ==
          "peers.json: nobody listens on the edge c - d: one of them needs an address at which the other can reach it");
  }
  SUBCASE("no members") {
    document.erase("members");
    CHECK(refusal(document).starts_with("peers.json: 'members' is missing"));
  }
  SUBCASE("one member") {
    document["members"] = {{{"name", "a"}}};
    CHECK(refusal(document) == "peers.json: an exchange needs 2 members at least");
  }
  SUBCASE("an address that is none") {
    document["members"][0]["address"] = "a.example";
    CHECK(refusal(document).starts_with("peers.json: members[0] (a): "));
  }
  SUBCASE("a key of a member that is unknown") {
    document["members"][0]["adress"] = "wss://a.example:1";
    CHECK(refusal(document) == "peers.json: members[0]: unknown key 'adress'; expected name and address");
  }
  SUBCASE("a setting that is unknown") {
    document["kd"]["alhpa"] = 0.5;
    CHECK(refusal(document).find("kd.alhpa") != std::string::npos);
  }
  SUBCASE("T out of range") {
    document["kd"]["temperature"] = 0;
    CHECK(refusal(document).find("kd.temperature") != std::string::npos);
  }
  SUBCASE("alpha out of range") {
    document["kd"]["alpha"] = 1.5;
    CHECK(refusal(document).find("kd.alpha") != std::string::npos);
  }
  SUBCASE("kd without a second head") {
    document["model"]["second_head"] = false;
    CHECK(refusal(document) == "peers.json: peers.method kd needs a model with two heads: set model.second_head");
  }
  SUBCASE("a method that sends beyond the graph") {
    document["peers"]["method"] = "proxyfl";
    document["peers"]["rounds"] = 4;
    document["edges"] = json::array({json::array({"a", "b"}), json::array({"b", "c"}), json::array({"c", "d"})});
    CHECK(refusal(document) ==
          "peers.json: peers.method proxyfl: a sends to c in round 2, and no edge joins them; use graph.kind full");
  }
  SUBCASE("timeouts that cannot be kept") {
    document["timeouts"]["silence"] = 5;
    CHECK(refusal(document) == "peers.json: timeouts must satisfy handshake <= silence <= phase");
  }
  SUBCASE("nothing says what a sample is") {
    document["data"]["set"] = "tensors";
    const PeersFile file = PeersFile::parse(document, "peers.json");
    CHECK(test::error_of(Errc::usage, [&] { (void)file.terms(); }) ==
          "data set 'tensors' does not say what a sample is: peers.json needs data.classes and data.shape");
  }
  SUBCASE("a single class") {
    document["data"] = {{"set", "tensors"}, {"classes", {"only"}}, {"shape", {3}}};
    CHECK(refusal(document) == "peers.json: data.classes: 1 classes; expected 2 to 2048");
  }
  SUBCASE("a class twice") {
    document["data"] = {{"set", "tensors"}, {"classes", {"x", "y", "x"}}, {"shape", {3}}};
    CHECK(refusal(document).starts_with("peers.json: data.classes: "));
  }
}

TEST_CASE("peers.json: digests are of what the settings mean, by section") {
  const auto digests = PeersFile::parse(four_members(), "peers.json").digests();
  json same = four_members();
  same["kd"]["measure"] = "kl";  // its default
  CHECK((PeersFile::parse(same, "x").digests() == digests));
  json other = four_members();
  other["train"]["lr"] = 0.5;
  auto theirs = PeersFile::parse(other, "x").digests();
  CHECK(theirs.at("train") != digests.at("train"));
  theirs["train"] = digests.at("train");
  CHECK((theirs == digests));
}

}  // namespace
}  // namespace headstart::peer

#include "server/phases/disclosure.hpp"

#include <doctest/doctest.h>

#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

FederationOptions options_of(StartModel start, StudentStart student, learn::TeacherWeighting weighting,
                             TransferSet transfer, ValidationSource validation) {
  FederationOptions options;
  options.start = start;
  options.consolidation.student = student;
  options.consolidation.weighting = weighting;
  options.consolidation.transfer = transfer;
  options.validation = validation;
  return options;
}

Consents sharing(std::size_t count) {
  Consents consents;
  for (std::size_t i = 0; i < 4; ++i) {
    (i < count ? consents.with_peers : consents.with_server).push_back("silo-" + std::to_string(i));
  }
  return consents;
}

/// The least number of sharing silos with which the run is not refused; 5 where four are too few.
std::size_t least_sharing(const FederationOptions& options, bool has_public_set) {
  std::size_t count = 0;
  while (count < 5 && !rule_on_consents(options, sharing(count), has_public_set).refusal.empty()) ++count;
  return count;
}

TEST_CASE("consents: how many silos must share with peers, start by start") {
  using enum StartModel;
  using enum ValidationSource;
  using Weighting = learn::TeacherWeighting;
  const auto best = StudentStart::best;
  const auto untrained = StudentStart::untrained;
  const auto on_public = TransferSet::public_large;
  const auto on_student = TransferSet::student;
  const auto least = [](auto... parts) { return least_sharing(options_of(parts...), false); };
  CHECK(least(random, best, Weighting::adaptive, on_student, federated) == 0);
  CHECK(least(average, best, Weighting::adaptive, on_student, server) == 0);
  CHECK(least(best_local, best, Weighting::adaptive, on_public, server) == 1);
  CHECK(least(kd, untrained, Weighting::adaptive, on_public, server) == 0);
  CHECK(least(kd, untrained, Weighting::equal, on_public, federated) == 0);
  CHECK(least(kd, untrained, Weighting::adaptive, on_public, federated) == 1);
  CHECK(least(kd, StudentStart::worst, Weighting::equal, on_public, server) == 1);
  CHECK(least(kd, best, Weighting::equal, on_public, federated) == 1);
  CHECK(least(kd, best, Weighting::precision, on_public, federated) == 2);
  CHECK(least(kd, untrained, Weighting::equal, on_student, server) == 2);
}

TEST_CASE("consents: an average of fewer than three models takes the consent of each silo") {
  FederationOptions options;
  options.start = StartModel::average;
  const auto refusal = [&options](Consents consents) { return rule_on_consents(options, consents, false).refusal; };
  CHECK(refusal({.with_peers = {"a", "b"}, .with_server = {}}).empty());
  CHECK(refusal({.with_peers = {"a"}, .with_server = {"b"}}).find("it is not set at b") != std::string::npos);
  CHECK_FALSE(refusal({.with_peers = {}, .with_server = {"a", "b"}}).empty());
  CHECK_FALSE(refusal({.with_peers = {}, .with_server = {"a"}}).empty());
  CHECK(refusal({.with_peers = {}, .with_server = {"a", "b", "c"}}).empty());
}

TEST_CASE("consents: student data falls back to the public set where there is one, and says so") {
  const auto options = options_of(StartModel::kd, StudentStart::untrained, learn::TeacherWeighting::equal,
                                  TransferSet::student, ValidationSource::server);
  const ConsentRuling enough = rule_on_consents(options, sharing(2), true);
  CHECK(enough.transfer == TransferSet::student);
  CHECK(enough.fallback.empty());
  const ConsentRuling fallback = rule_on_consents(options, sharing(1), true);
  CHECK(fallback.transfer == TransferSet::public_large);
  CHECK(fallback.refusal.empty());
  CHECK(fallback.fallback.find("there are 1") != std::string::npos);
  const ConsentRuling refused = rule_on_consents(options, sharing(1), false);
  CHECK(refused.refusal.find("share_model: peers at 2 silo(s), and it is set at 1 (silo-0)") != std::string::npos);
}

TEST_CASE("consents: silos that give answers alone are in answers and sums, and in nothing else") {
  const Consents mixed{.with_peers = {"a"}, .with_server = {}, .with_nobody = {"b", "c"}};
  auto options = options_of(StartModel::kd, StudentStart::best, learn::TeacherWeighting::experts,
                            TransferSet::public_large, ValidationSource::server);
  CHECK(rule_on_consents(options, mixed, true)
            .refusal.find("b, c say share_model: answers. Set "
                          "consolidation.exchange=answers") != std::string::npos);
  options.consolidation.exchange = TeachingExchange::answers;
  CHECK(rule_on_consents(options, mixed, true).refusal.empty());
  options.consolidation = {};
  options.consolidation.target = TeachingTarget::lifted;
  CHECK(rule_on_consents(options, mixed, true).refusal.empty());
  options.consolidation.target = TeachingTarget::joint;
  CHECK(rule_on_consents(options, mixed, true).refusal.starts_with("consolidation.target joint sends every silo"));
}

TEST_CASE("consents: of start auto the candidates that are left count") {
  FederationOptions options;
  options.start = StartModel::automatic;
  options.validation = ValidationSource::server;
  options.candidates = {"best_local", "average+head", "random"};
  const ConsentRuling ruling = rule_on_consents(options, sharing(0), true);
  CHECK(ruling.refusal.empty());
  REQUIRE(ruling.dropped.size() == 1);
  CHECK(ruling.dropped[0].first == "best_local");
  options.candidates = {"best_local"};
  CHECK(rule_on_consents(options, sharing(0), true).refusal.find("leaves none of start.candidates; best_local: ") !=
        std::string::npos);
}

TEST_CASE("consents: the fallback spares no other need") {
  const auto options = options_of(StartModel::kd, StudentStart::best, learn::TeacherWeighting::equal,
                                  TransferSet::student, ValidationSource::server);
  const ConsentRuling ruling = rule_on_consents(options, sharing(0), true);
  CHECK(ruling.refusal.find("consolidation.student best") != std::string::npos);
  CHECK(ruling.refusal.find("nobody") != std::string::npos);
}

TEST_CASE("the gate: a silo's model leaves for itself, and for others where the silo consented") {
  LocalModelRecord model;
  model.digest = "abc";
  const auto release = [&model](const std::string& recipient) {
    return DisclosurePolicy(recipient).release("silo-1", model, nullptr).digest();
  };
  CHECK(release("silo-1") == "abc");
  CHECK(test::error_of(Errc::internal, [&] {
          release("silo-2");
        }).starts_with("silo-1's pre-trained model was to be sent to silo-2, and silo-1 says share_model: server"));
  model.shares_with_peers = true;
  CHECK(release("silo-2") == "abc");
}

}  // namespace
}  // namespace headstart::server

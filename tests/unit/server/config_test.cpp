#include <doctest/doctest.h>

#include "server/config/server_config.hpp"
#include "server/sessions/patience.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

ServerConfig config_with(const std::vector<const char*>& assignments) {
  ServerConfig config;
  Fields fields;
  declare_fields(fields, config);
  for (const char* assignment : assignments) fields.set(assignment);
  return config;
}

std::string refusal_of(const std::vector<const char*>& assignments) {
  return test::error_of([&] { check(config_with(assignments)); });
}

TEST_CASE("no setting is declared twice, and defaults are within their bounds") {
  ServerConfig config;
  Fields fields;
  declare_fields(fields, config);
  std::vector<std::string> keys;
  for (const auto& field : fields.all()) keys.push_back(field.key);
  std::ranges::sort(keys);
  CHECK(std::ranges::adjacent_find(keys) == keys.end());
  CHECK_NOTHROW(fields.load(fields.resolved(), "defaults"));
}

TEST_CASE("every group of settings has words that help shows") {
  ServerConfig config;
  Fields fields;
  declare_fields(fields, config);
  for (const Fields::Group& group : fields.groups()) {
    CAPTURE(group.name);
    CHECK(!group.words.empty());
  }
}

TEST_CASE("timeouts that contain one another the wrong way round are refused by both names") {
  CHECK(refusal_of({}) == "(no error)");
  const std::string message = refusal_of({"timeouts.silence=700"});
  CHECK(message.find("timeouts.silence (700 s) is longer than timeouts.task (600 s)") != std::string::npos);
  CHECK(refusal_of({"timeouts.handshake=31"}).find("timeouts.silence") != std::string::npos);
  CHECK(refusal_of({"timeouts.task=100", "timeouts.phase=99"}).find("timeouts.phase") != std::string::npos);
  CHECK(refusal_of({"timeouts.absence=90000"}).find("timeouts.absence") != std::string::npos);
  const Patience patience = patience_of({.absence = 1.5, .task = 0.25, .phase = 60});
  CHECK(patience.absence == std::chrono::milliseconds(1500));
  CHECK(patience.task == std::chrono::milliseconds(250));
  CHECK(patience.phase == std::chrono::seconds(60));
}

TEST_CASE("FedAvg's and distillation's published defaults") {
  const ServerConfig config;
  CHECK(config.terms.train.optimizer.lr == 0.01);
  CHECK(config.terms.train.epochs == 2);
  CHECK(config.federation.num_rounds == 100);
  CHECK(config.terms.pretrain.max_epochs == 100);
  CHECK(config.terms.pretrain.patience == 10);
  CHECK(config.terms.consolidation.epochs == 30);
  CHECK(config.terms.consolidation.temperature == 1);
  CHECK(config.terms.consolidation.alpha == 0.5);
}

TEST_CASE("whatever needs a validation source is refused by name without one") {
  CHECK(refusal_of({"start.model=random"}) == "(no error)");
  CHECK(refusal_of({"start.model=best_local"}).starts_with("start.model best_local needs validation.source"));
  CHECK(refusal_of({"start.model=kd"}).starts_with("consolidation.student best or worst needs validation.source"));
  CHECK(refusal_of({"start.model=kd", "consolidation.student=untrained"})
            .starts_with("consolidation.weights adaptive or precision needs validation.source"));
  CHECK(refusal_of({"start.model=kd", "consolidation.student=untrained", "consolidation.weights=equal",
                    "consolidation.gate=true"})
            .starts_with("consolidation.gate needs validation.source"));
  const auto with = [](const char* setting) {
    return refusal_of({"start.model=kd", "consolidation.student=untrained", "consolidation.weights=equal", setting});
  };
  CHECK(with("consolidation.tune=auto").starts_with("consolidation.tune needs validation.source"));
  CHECK(with("consolidation.divide_label_prior=true")
            .starts_with("consolidation.divide_label_prior needs validation.source"));
  CHECK(refusal_of({"start.model=kd", "consolidation.student=untrained", "consolidation.weights=equal"}) ==
        "(no error)");
  CHECK(refusal_of({"start.model=kd", "validation.source=federated"}) == "(no error)");
}

TEST_CASE("settings that contradict each other are refused") {
  CHECK(refusal_of({"targets.fractions=[0.9]"}) == "targets.fractions need targets.reference");
  CHECK(refusal_of({"targets.stop=true"}).starts_with("targets.stop needs"));
  CHECK(refusal_of({"targets.accuracies=[0.9]", "evaluation.central=false"}).starts_with("targets need"));
  CHECK(refusal_of({"federation.clients=3", "federation.min_clients=4"}).starts_with("federation.min_clients"));
  CHECK(refusal_of({"start.model=kd", "validation.source=federated", "consolidation.keep=best"})
            .starts_with("consolidation.keep best"));
  CHECK(refusal_of({"start.model=kd", "validation.source=server", "consolidation.transfer=student",
                    "consolidation.divide_label_prior=true"})
            .find("consolidation.transfer public") != std::string::npos);
  CHECK(refusal_of({"start.model=kd", "validation.source=server", "consolidation.tune=grid",
                    "consolidation.grid.temperatures=[]"})
            .starts_with("a search needs at least one temperature"));
  const auto distilled = [](const char* weights) {
    return refusal_of({"start.model=kd", "validation.source=server", "consolidation.average=none",
                       "consolidation.measure=js", weights});
  };
  CHECK(distilled("consolidation.weights=adaptive") ==
        "consolidation.average=none with consolidation.measure=js cannot weigh teachers by class: "
        "consolidation.weights must be equal");
  CHECK(distilled("consolidation.weights=equal") == "(no error)");
  CHECK(refusal_of({"feddf.measure=msed"}) ==
        "feddf.measure=msed compares the student with each of its teachers: it needs feddf.average=none");
}

TEST_CASE("starts by experts, answers and sums: what excludes what is refused") {
  const auto kd = [](std::initializer_list<const char*> settings) {
    std::vector<const char*> all = {"start.model=kd", "validation.source=server"};
    all.insert(all.end(), settings);
    return refusal_of(all);
  };
  CHECK(kd({"consolidation.weights=experts"}) == "(no error)");
  CHECK(kd({"consolidation.weights=experts", "consolidation.transfer=student"})
            .starts_with("consolidation.weights experts needs consolidation.transfer public"));
  CHECK(kd({"consolidation.weights=experts", "consolidation.average=logits"}).find("average probabilities") !=
        std::string::npos);
  CHECK(
      kd({"consolidation.exchange=answers"}).starts_with("consolidation.exchange answers needs consolidation.weights"));
  CHECK(kd({"consolidation.exchange=answers", "consolidation.weights=equal"}) == "(no error)");
  CHECK(kd({"consolidation.exchange=answers", "consolidation.weights=equal", "consolidation.answer_bits=13"}) ==
        "consolidation.answer_bits: 12 or 16, got 13");
  CHECK(kd({"consolidation.exchange=answers", "consolidation.weights=equal", "consolidation.target=joint"})
            .find("goes with consolidation.target teachers") != std::string::npos);
  CHECK(kd({"consolidation.target=joint", "consolidation.weights=experts"}).find("one teacher") != std::string::npos);
  CHECK(refusal_of({"start.model=kd", "consolidation.target=lifted", "consolidation.student=untrained"})
            .starts_with("consolidation.target lifted or joint needs validation.source"));
  CHECK(refusal_of({"start.model=kd", "consolidation.student=untrained", "consolidation.weights=experts"}) ==
        "(no error)");
}

TEST_CASE("start auto, heads and bf16: what they need is said at the start") {
  CHECK(refusal_of({"start.model=auto"}).starts_with("start.model auto needs validation.source"));
  CHECK(refusal_of({"start.model=auto", "validation.source=server"}) == "(no error)");
  CHECK(refusal_of({"start.model=auto", "validation.source=server", "start.candidates=[]"}) ==
        "start.candidates: name at least one start");
  CHECK(refusal_of({"start.model=auto", "validation.source=server", R"(start.candidates=["auto"])"})
            .starts_with("start.candidates: 'auto' is no start"));
  CHECK(refusal_of({"start.model=auto", "validation.source=server", "start.head=sums"}).find("kd+head") !=
        std::string::npos);
  CHECK(refusal_of({"rounds.head=sums"}).starts_with("rounds.head sums needs validation.source"));
  CHECK(refusal_of({"start.head=sums", "head.method=ridge"}).starts_with("head.method ridge or gaussian needs"));
  CHECK(refusal_of({"run.precision=bf16", "model.name=script:m.pt"}).starts_with("run.precision: bf16 is for"));
}

TEST_CASE("a round needs half of the clients unless told otherwise") {
  const auto quorum = [](std::int64_t num_clients, std::int64_t min_clients = 0) {
    FederationOptions options;
    options.num_clients = num_clients;
    options.min_clients = min_clients;
    return quorum_of(options);
  };
  CHECK(quorum(10) == 5);
  CHECK(quorum(3) == 2);
  CHECK(quorum(1) == 1);
  CHECK(quorum(10, 9) == 9);
}

TEST_CASE("validation.metric and evaluation.scores: what is no metric or decides nothing is refused") {
  CHECK(refusal_of({"validation.metric=dice"}).find("'dice' is no metric: accuracy, ") != std::string::npos);
  CHECK(refusal_of({"validation.metric=f1"}).find("validation.metric f1 decides nothing without validation.source") !=
        std::string::npos);
  CHECK(refusal_of({"validation.metric=f1", "validation.source=server"}) == "(no error)");
  // Early stopping goes by it, too.
  CHECK(refusal_of({"validation.metric=recall:ill", "start.model=average"}) == "(no error)");
  CHECK(refusal_of({"evaluation.scores=true"}) == "(no error)");
  CHECK(refusal_of({"evaluation.scores=true", "evaluation.federated=false"}) ==
        "evaluation.scores needs evaluation.federated true");
}

}  // namespace
}  // namespace headstart::server

#include "server/phases/run_terms.hpp"

#include <algorithm>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/printable.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

const ServerConfig default_config = [] {
  ServerConfig config;
  return config;
}();

CentralData data_of(const learn::Task& task) {
  CentralData data;
  data.task = task;
  return data;
}

std::string refusal_of(const learn::Task& task, std::vector<std::string> classes = {}) {
  CentralData data = data_of(task);
  data.samples.classes = std::move(classes);
  return test::error_of(Errc::data, [&] { (void)run_terms(default_config, data); });
}

TEST_CASE("what no client could read is refused before the server listens, with the number and its bound") {
  const auto says = [](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  says(refusal_of({{1, 8, 8}, 2049}), "task.classes': expected integer from 2 to 2048, got 2049");
  says(refusal_of({{1, 8, 8}, 1}), "from 2 to 2048, got 1");
  says(refusal_of({{1, 1, 65537}, 3}), "a dimension of a sample is of 1 to 65536, not 65537");
  says(refusal_of({{1, 0, 1}, 3}), "a dimension of a sample is of 1 to 65536, not 0");
  says(refusal_of({{}, 3}), "a sample has 1 to 7 dimensions, not 0");
  says(refusal_of({std::vector<std::int64_t>(8, 1), 3}), "a sample has 1 to 7 dimensions, not 8");
  says(refusal_of({std::vector<std::int64_t>(7, 65536), 3}), "a sample has at most 2147483648 values");
  CHECK(refusal_of({{1, 1, 65536}, 2048}) == "(no error)");
  CHECK(refusal_of({{65536}, 2}) == "(no error)");
  std::vector<std::string> long_names;
  for (int i = 0; i < 2048; ++i) long_names.push_back(fmt::format("a class with a long name, {}", i));
  says(refusal_of({{1, 8, 8}, 2048}, long_names), "a client reads 49152 at most");
  long_names.resize(1000);
  CHECK(refusal_of({{1, 8, 8}, 1000}, long_names) == "(no error)");
  says(refusal_of({{1, 8, 8}, 2}, {"a", "a"}), "stands in the list twice");
  says(refusal_of({{1, 8, 8}, 3}, {"a", "b"}), "2 names for 3 classes");
}

TEST_CASE("the terms say what a silo's people want to know, and read as written") {
  ServerConfig config;
  config.federation.num_rounds = 12;
  config.federation.start = StartModel::kd;
  config.federation.validation = ValidationSource::federated;
  CentralData data = data_of({{1, 8, 8}, 2});
  data.samples = {.classes = {"NORMAL", "PNEUMONIA"},
                  .stored = learn::Stored::uint8,
                  .range = {0, 1},
                  .mean = {0.2860},
                  .deviation = {0.3530}};
  const plan::Terms terms = run_terms(config, data);
  CHECK(terms.plan.rounds == 12);
  CHECK(terms.plan.start == "kd");
  CHECK(terms.plan.share_model.find("federated validation") != std::string::npos);
  const plan::Terms read = plan::terms_from_json_text(plan::to_json_text(terms));
  CHECK(read.samples.classes == data.samples.classes);
  CHECK(read.samples.stored == learn::Stored::uint8);
  CHECK(read.samples.mean == data.samples.mean);
  CHECK(read.architecture == terms.model.architecture());
  CHECK(plan::digest_of(read) == plan::digest_of(terms));
  config.federation.start = StartModel::random;
  CHECK(run_terms(config, data).plan.share_model.empty());
}

TEST_CASE("a model file's metadata name shape, scale, constants, classes, architecture, round, version and terms") {
  CentralData data = data_of({{2, 3, 4}, 2});
  data.samples.classes = {"a", "b"};
  const plan::Terms terms = run_terms(default_config, data);
  const wire::Metadata metadata = plan::metadata_of(terms, 7);
  CHECK(metadata.at("input_shape") == "[2,3,4]");
  CHECK(metadata.at("scale") == R"({"float32":1,"uint8":255})");
  CHECK(metadata.at("mean") == "[0.0,0.0]");
  CHECK(metadata.at("deviation") == "[1.0,1.0]");
  CHECK(metadata.at("classes") == R"(["a","b"])");
  CHECK(metadata.at("architecture") == terms.model.architecture());
  CHECK(metadata.at("round") == "7");
  CHECK_FALSE(metadata.at("headstart").empty());
  CHECK(metadata.at("terms") == plan::digest_of(terms));
}

TEST_CASE("constants of too many columns to be told are refused; without any a model file says one for all") {
  CentralData data = data_of({{4000}, 2});
  CHECK(plan::metadata_of(run_terms(default_config, data), 1).at("mean") == "[0.0]");
  CHECK(plan::metadata_of(run_terms(default_config, data), 1).at("deviation") == "[1.0]");
  data.samples.mean.assign(4000, 0.1234567890123);
  data.samples.deviation.assign(4000, 1.234567890123);
  const std::string refusal = test::error_of(Errc::data, [&] { (void)run_terms(default_config, data); });
  CHECK(refusal.find("the means and deviations of 4000 channels make up most of it") != std::string::npos);
}

TEST_CASE("terms with a shape that cannot be are refused as the server's mistake") {
  auto document = nlohmann::json::parse(plan::to_json_text(run_terms(default_config, data_of({{1, 8, 8}, 2}))));
  CHECK(document["task"]["shape"] == nlohmann::json{1, 8, 8});
  for (const nlohmann::json& shape : {nlohmann::json::array(), nlohmann::json(std::vector<int>(8, 1)),
                                      nlohmann::json{3, 0}, nlohmann::json{65536, 65536, 65536}, nlohmann::json(5)}) {
    CAPTURE(shape.dump());
    document["task"]["shape"] = shape;
    CHECK(test::code_of([&] { (void)plan::terms_from_json_text(document.dump()); }) == Errc::protocol);
  }
}

TEST_CASE("the terms name the sections that a client must know: all but those that change nothing it computes") {
  const auto document = nlohmann::json::parse(plan::to_json_text(run_terms(default_config, data_of({{1, 8, 8}, 2}))));
  std::vector<std::string> sections;
  for (const auto& [section, value] : document.items()) {
    if (section != "required" && section != "limits" && section != "plan") sections.push_back(section);
  }
  auto required = document.at("required").get<std::vector<std::string>>();
  std::ranges::sort(required);
  CHECK(required == sections);
  CHECK(document.contains("plan"));
  CHECK(document.contains("limits"));
}

TEST_CASE("sections of later terms: those that nobody must know are left aside and named, others are refused") {
  const auto read = [](const nlohmann::json& changes) {
    auto document = nlohmann::json::parse(plan::to_json_text(run_terms(default_config, data_of({{1, 8, 8}, 2}))));
    document.update(changes);
    return plan::terms_from_json_text(document.dump());
  };
  CHECK(read({{"limits", {{"examples", 7}}}}).unknown_sections.empty());
  CHECK_FALSE(plan::remark_on_unknown(read({{"limits", {{"examples", 7}}}})).has_value());
  const plan::Terms later =
      read({{"privacy", {{"noise", 1}}}, {"masking.rounds", 3}, {"masking.seed", 4}, {"pace", 5}});
  CHECK(later.unknown_sections == std::vector<std::string>{"masking", "pace", "privacy"});
  CHECK(plan::remark_on_unknown(later) ==
        "the run has terms that this client does not know and need not, and leaves aside: \"masking\", \"pace\", "
        "\"privacy\"");
  CHECK(nlohmann::json::parse(plan::to_json_text(later)) ==
        nlohmann::json::parse(plan::to_json_text(read(nlohmann::json::object()))));

  const auto refusal = [&read](Errc code, const nlohmann::json& changes) {
    return test::error_of(code, [&] { (void)read(changes); });
  };
  CHECK(refusal(Errc::rejected, {{"privacy", {{"noise", 1}}}, {"required", {"run", "privacy", "masking"}}}) ==
        "the run has terms that this client does not know and must: \"privacy\", \"masking\"; use the server's "
        "version of headstart here");
  // Within a section that is known, each key must be.
  CHECK(refusal(Errc::protocol, {{"limits", {{"exmples", 7}}}}).find("unknown setting 'limits.exmples'") !=
        std::string::npos);
  CHECK(refusal(Errc::protocol, {{"train", 5}}).find("unknown setting 'train'") != std::string::npos);
  for (const nlohmann::json& list : {nlohmann::json("run"), nlohmann::json(nullptr), nlohmann::json({"run", 1}),
                                     nlohmann::json(std::vector<std::string>(65, "run"))}) {
    CHECK(refusal(Errc::protocol, {{"required", list}}).find("'required' is no list of at most 64 names") !=
          std::string::npos);
  }
  const std::string long_words =
      refusal(Errc::rejected, {{"required", std::vector<std::string>(64, "\x1b[2J" + std::string(700, 'x'))}});
  CHECK(is_printable(long_words));
  CHECK(long_words.size() <= 400);
}

TEST_CASE("settings newer than the protocol travel where they are not at their defaults, and come back") {
  ServerConfig config;
  const auto travelled = [&config] {
    return nlohmann::json::parse(plan::to_json_text(run_terms(config, data_of({{1, 8, 8}, 2})))).at("consolidation");
  };
  for (const char* key : {"measure", "strength", "reduction"}) CHECK_FALSE(travelled().contains(key));
  CHECK(travelled().contains("average"));
  const auto model = [&config] {
    return nlohmann::json::parse(plan::to_json_text(run_terms(config, data_of({{1, 8, 8}, 2})))).at("model");
  };
  CHECK_FALSE(model().contains("second_head"));
  CHECK_FALSE(nlohmann::json::parse(plan::to_json_text(learn::ModelSpec{})).at("model").contains("second_head"));
  config.terms.model.second_head = true;
  CHECK(model().at("second_head") == true);
  CHECK(plan::spec_from_json_text(plan::to_json_text(config.terms.model)).second_head);
  config.terms.consolidation.measure = "sed";
  config.terms.consolidation.strength = learn::MeasureStrength::matched;
  CHECK(travelled().at("measure") == "sed");
  CHECK_FALSE(travelled().contains("reduction"));
  const plan::Terms read = plan::terms_from_json_text(plan::to_json_text(run_terms(config, data_of({{1, 8, 8}, 2}))));
  CHECK(read.consolidation.measure == "sed");
  CHECK((read.consolidation.strength == learn::MeasureStrength::matched));
  CHECK((read.consolidation.reduction == learn::BatchReduction::mean));
}

TEST_CASE("columns of a table and federated statistics travel where a run has them, and only then") {
  ServerConfig config;
  const auto travelled = [&config](const CentralData& data) {
    return nlohmann::json::parse(plan::to_json_text(run_terms(config, data)));
  };
  CHECK_FALSE(travelled(data_of({{1, 8, 8}, 2})).at("samples").contains("table"));
  CHECK_FALSE(travelled(data_of({{1, 8, 8}, 2})).at("data").contains("statistics"));
  config.terms.model.name = "mlp";
  CHECK_FALSE(travelled(data_of({{3}, 2})).at("model").contains("hidden_layers"));
  config.terms.model.hidden_layers = {7};
  CHECK(travelled(data_of({{3}, 2})).at("model").at("hidden_layers") == nlohmann::json{7});

  CentralData data = data_of({{3}, 2});
  data.samples.classes = {"no", "yes"};
  data.samples.table.label = "y";
  data.samples.table.add({"age", {}});
  data.samples.table.add({"sex", {"f", "m"}});
  data.samples.mean = {1, 2, 3};
  data.samples.deviation = {1, 1, 1};
  const std::string digest = plan::digest_of(run_terms(config, data));
  plan::Terms read = plan::terms_from_json_text(plan::to_json_text(run_terms(config, data)));
  CHECK((read.samples.table == data.samples.table));
  CHECK(read.samples.mean == data.samples.mean);
  CHECK(nlohmann::json::parse(plan::metadata_of(read, 1).at("table")) ==
        nlohmann::json::parse(R"({"label": "y", "classes": ["no", "yes"], "missing": "refuse",
                                  "columns": [{"name": "age"}, {"name": "sex", "categories": ["f", "m"]}]})"));
  config.terms.statistics = plan::StatisticsSource::federated;
  const std::string text = plan::to_json_text(run_terms(config, data));
  read = plan::terms_from_json_text(text);
  CHECK(read.statistics == plan::StatisticsSource::federated);
  CHECK(read.samples.mean.empty());
  // The terms are the same before the silos have said it and after.
  data.samples.mean = data.samples.deviation = {};
  CHECK(plan::to_json_text(run_terms(config, data)) == text);
  CHECK(plan::digest_of(read) != digest);

  const auto refusal = [&](auto change) {
    plan::Terms odd = read;
    change(odd);
    return test::error_of(Errc::protocol, [&] { (void)plan::terms_from_json_text(plan::to_json_text(odd)); });
  };
  CHECK(refusal([](plan::Terms& odd) { odd.task.shape = {4}; }).find("make 3 features, and a sample is of 4") !=
        std::string::npos);
  CHECK(refusal([](plan::Terms& odd) { odd.samples.table.num_categories = {1, 2}; }).find("2 in all, not 3") !=
        std::string::npos);
  CHECK(refusal([](plan::Terms& odd) { odd.samples.table.columns[1] = "y"; }).find("two columns are named") !=
        std::string::npos);
}

TEST_CASE("what clients may be asked to do follows from the run's start, its validation and where it consolidates") {
  FederationOptions options;
  CentralData data;
  const auto are = [&](const std::vector<std::string_view>& expected) { return tasks_of(options, data) == expected; };
  CHECK(are({plan::task::train, plan::task::evaluate}));
  options.federated_evaluation = false;
  CHECK(are({plan::task::train}));
  options.start = StartModel::best_local;
  options.validation = ValidationSource::federated;
  CHECK(are({plan::task::pretrain, plan::task::exchange, plan::task::train, plan::task::evaluate}));
  options.validation = ValidationSource::server;
  options.start = StartModel::average;
  CHECK(are({plan::task::pretrain, plan::task::exchange, plan::task::train, plan::task::statistics}));
  data.transfer.x = torch::zeros({2, 1, 8, 8});
  CHECK(are({plan::task::pretrain, plan::task::exchange, plan::task::train}));
  options.start = StartModel::kd;
  options.num_rounds = 0;
  CHECK(are({plan::task::pretrain, plan::task::exchange, plan::task::logits}));
  options.consolidation.transfer = TransferSet::student;
  CHECK(are({plan::task::pretrain, plan::task::exchange, plan::task::logits, plan::task::distill}));
  data.transfer = {};
  CHECK(are({plan::task::pretrain, plan::task::exchange, plan::task::distill}));
  data.awaits_statistics = true;
  CHECK(are({plan::task::describe, plan::task::pretrain, plan::task::exchange, plan::task::distill}));
}

TEST_CASE("validation.metric: clients are told another one than accuracy alone, its class by number") {
  ServerConfig config;
  CentralData data = data_of({{1, 8, 8}, 2});
  data.samples.classes = {"healthy", "ill"};
  const std::string plain = plan::to_json_text(run_terms(config, data));
  CHECK_FALSE(nlohmann::json::parse(plain).at("pretrain").contains("metric"));
  config.federation.metric = "recall:ill";
  const plan::Terms terms = run_terms(config, data);
  const std::string text = plan::to_json_text(terms);
  CHECK(nlohmann::json::parse(text).at("pretrain").at("metric") == "recall:1");
  CHECK(plan::digest_of(terms) != sha256_hex(plain));
  const learn::Metric metric = plan::terms_from_json_text(text).validation_metric();
  CHECK(metric.kind == learn::MetricKind::recall);
  CHECK(metric.of_class == 1);
  for (const char* metric_of_no_class : {"recall:2", "recall", "dice"}) {
    nlohmann::json other = nlohmann::json::parse(text);
    other["pretrain"]["metric"] = metric_of_no_class;
    CHECK(test::code_of([&] { (void)plan::terms_from_json_text(other.dump()); }) == Errc::protocol);
  }
}

TEST_CASE("validation.metric: a class that is not there, or not in the validation set, is refused before the run") {
  ServerConfig config;
  CentralData data = data_of({{1, 8, 8}, 2});
  data.samples.classes = {"healthy", "ill"};
  const auto refusal = [&](const char* metric) {
    config.federation.metric = metric;
    return test::error_of(Errc::usage, [&] { (void)run_terms(config, data); });
  };
  CHECK(refusal("recall:dead")
            .find("validation.metric: 'recall:dead': there is no class 'dead'; name one of the 2 "
                  "classes, or its number, 0 to 1") != std::string::npos);
  config.federation.validation = ValidationSource::server;
  data.validation = {torch::zeros({3, 1, 8, 8}), torch::zeros({3}, torch::kLong)};
  CHECK(refusal("recall:healthy") == "(no error)");
  CHECK(refusal("auc") == "(no error)");
  CHECK(refusal("auc:ill") == "validation.metric auc:ill: the server's validation set has no sample of class 'ill'");
  CentralData many = data_of({{1, 8, 8}, 65});
  config = default_config;
  config.federation.counts_scores = true;
  CHECK(test::error_of(Errc::usage, [&] { (void)run_terms(config, many); }) ==
        "evaluation.scores: scores are counted for at most 64 classes; there are 65");
}

}  // namespace
}  // namespace headstart::server

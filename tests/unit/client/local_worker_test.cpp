#include "client/local_worker.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <sstream>
#include <vector>

#include <doctest/doctest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/resource.h>
#include <torch/types.h>

#include "client/check.hpp"
#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/distill/experts.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::client {
namespace {

/// Of 50 samples, 10 of which are held out.
constexpr std::int64_t silo = 3;
constexpr std::int64_t num_training = 40;
constexpr std::int64_t num_held_out = 10;

plan::Terms small_terms() { return test::small_config("").terms; }

std::unique_ptr<test::DelegatingWorker> joined_worker(const SiloOptions& options = {}) {
  auto worker = std::make_unique<test::DelegatingWorker>(test::small_worker(silo, options));
  worker->join(small_terms());
  return worker;
}

wire::PackedState model_of(std::uint64_t seed) {
  const plan::Terms terms = small_terms();
  return wire::PackedState(learn::make_model(terms.model, terms.task, Seed(seed))->state());
}

/// Notes what a task reports, and stops it after as many reports.
class Notes {
 public:
  explicit Notes(std::size_t most = 0) : most_(most) {}
  TaskContext context() {
    return {.progress =
                [this](const learn::Progress& progress) {
                  done.push_back(progress.done);
                  totals.push_back(progress.total);
                  if (done.size() == most_) stop_.request_stop();
                },
            .stop = stop_.get_token()};
  }
  /// Whether reports grew, of one and the same total, up to it.
  [[nodiscard]] bool are_of_one_whole() const {
    return !done.empty() && std::ranges::adjacent_find(done, std::greater_equal{}) == done.end() &&
           std::ranges::count(totals, done.back()) == std::ssize(totals);
  }

  std::vector<std::int64_t> done;
  std::vector<std::int64_t> totals;

 private:
  std::size_t most_;
  std::stop_source stop_;
};

/// 1.7 GB, which nobody would build for a test.
learn::ModelSpec enormous() {
  learn::ModelSpec spec;
  spec.channels = {2048, 2048};
  spec.hidden = 220000;
  return spec;
}

std::int64_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

TEST_CASE("a model above limits.own_model is refused before it is built: the client's own, and one from the server") {
  const std::int64_t before = peak_memory();
  const auto own = test::small_worker(silo, {.own_model = enormous()});
  const std::string refusal = test::error_of(Errc::usage, [&] { own->join(small_terms()); });
  CHECK(refusal.find("own_model: 'cnn channels=2048,2048") != std::string::npos);
  CHECK(refusal.find("limits.own_model of the run allows 268435456") != std::string::npos);
  const auto worker = joined_worker();
  CHECK(test::error_of(Errc::protocol, [&] { (void)worker->schema_of(enormous()); }).find("a model from the server") !=
        std::string::npos);
  CHECK(peak_memory() - before < std::int64_t{200} << 20);
  plan::Terms tight = small_terms();
  tight.max_own_model = 900;
  learn::ModelSpec small = tight.model;
  small.hidden = 9;
  CHECK(test::code_of([&] { test::small_worker(silo, {.own_model = small})->join(tight); }) == Errc::usage);
  CHECK(test::small_worker(silo, {.own_model = small})->join(small_terms()).own_architecture.value ==
        small.architecture());
}

Input normalisation_of(const at::Tensor& mean_and_deviation) {
  wire::PackedState state = wire::PackedState::of_tensor("normalisation", mean_and_deviation);
  return {.name = "normalisation", .owner = {}, .form = {}, .digest = state.digest(), .state = state};
}

Assignment evaluation(std::vector<Input> more = {}) {
  Assignment assignment{.kind = "evaluate", .settings = {}, .inputs = {}};
  const wire::PackedState model = model_of(1);
  assignment.inputs.push_back({.name = "model", .owner = {}, .form = {}, .digest = model.digest(), .state = model});
  for (Input& input : more) assignment.inputs.push_back(std::move(input));
  return assignment;
}

TEST_CASE("federated statistics: a silo describes its training samples, and works on them once they are normalised") {
  plan::Terms terms = small_terms();
  terms.statistics = plan::StatisticsSource::federated;
  SiloOptions options;
  options.min_described_samples = num_training;
  options.shows_range = true;
  const auto worker = test::small_worker(silo, options);
  worker->join(terms);
  const TaskResult described = worker->perform({.kind = "describe", .settings = {}, .inputs = {}}, Notes().context());
  const auto figures = plan::describe_figures_from_json_text(described.figures, num_training);
  CHECK(figures.num_samples == num_training);
  CHECK(figures.has_range);
  REQUIRE(described.state);
  const at::Tensor said = described.state->state().tensors().front().tensor;
  CHECK(said.sizes() == at::IntArrayRef({6, 1}));
  CHECK(said[0].item<double>() == num_training * 144);

  CHECK(test::code_of([&] { (void)worker->perform(evaluation(), Notes().context()); }) == Errc::protocol);
  const auto by = [](double mean, double deviation) {
    return normalisation_of(torch::tensor({mean, deviation}, torch::kDouble).view({2, 1}));
  };
  const auto loss_by = [&](double mean, double deviation) {
    const TaskResult result = worker->perform(evaluation({by(mean, deviation)}), Notes().context());
    return plan::evaluation_from_json_text(result.figures, 3, num_held_out).loss_sum;
  };
  // As a silo of a run that has said it from the start.
  plan::Terms given = small_terms();
  given.samples.mean = {0.5};
  given.samples.deviation = {2};
  const auto other = test::small_worker(silo, {});
  other->join(given);
  const TaskResult expected = other->perform(evaluation(), Notes().context());
  CHECK(loss_by(0.5, 2) == plan::evaluation_from_json_text(expected.figures, 3, num_held_out).loss_sum);
  CHECK(loss_by(0.5, 3) != loss_by(0.5, 2));
  for (const Input& odd : {by(0, 0), by(std::nan(""), 1), normalisation_of(torch::ones({2, 2}, torch::kDouble)),
                           normalisation_of(torch::ones({2, 1}))}) {
    CHECK(test::code_of([&] { (void)worker->perform(evaluation({odd}), Notes().context()); }) == Errc::protocol);
  }

  options.min_described_samples = num_training + 1;
  const auto silent = test::small_worker(silo, options);
  silent->join(terms);
  const TaskResult nothing = silent->perform({.kind = "describe", .settings = {}, .inputs = {}}, Notes().context());
  CHECK(plan::describe_figures_from_json_text(nothing.figures, num_training).num_samples == 0);
  CHECK(nothing.state->state().tensors().front().tensor.abs().sum().item<double>() == 0);
}

Assignment consolidation_of_two_teachers() {
  const learn::ModelSpec spec = small_terms().model;
  return test::Consolidation(model_of(1), wire::PackedState::of_tensor("weights", learn::equal_weights(2, 3)),
                             {{"silo-0", spec, model_of(2)}, {"silo-1", spec, model_of(3)}},
                             {.temperature = 2, .alpha = 0.5})
      .assignment;
}

TEST_CASE("an own model that cannot be trained on the silo's samples is refused at joining") {
  SiloOptions options;
  options.own_model = learn::ModelSpec{.name = "script:tests/golden/user_scripts/Plain.pt"};
  CHECK_THROWS_WITH_AS(joined_worker(options), doctest::Contains("Plain.pt: the script must map"), Error);
}

TEST_CASE("a consolidation reports while its teachers answer, before the student's first epoch, as one piece of work") {
  const auto worker = joined_worker();
  const Assignment task = consolidation_of_two_teachers();
  const std::int64_t num_student = num_training * small_terms().consolidation.epochs;
  Notes notes;
  worker->distill(task, notes.context());
  CHECK(notes.are_of_one_whole());
  REQUIRE(notes.done.size() > 3);
  CHECK(notes.done[0] == num_training);
  CHECK(notes.done[1] == 2 * num_training);
  CHECK(notes.done[2] == 2 * num_training + small_terms().consolidation.batch_size);
  CHECK(notes.done.back() == 2 * num_training + num_student);

  // With another setting the teachers are not asked again.
  Notes again;
  worker->distill(task, again.context());
  CHECK(again.are_of_one_whole());
  CHECK(again.done.back() == num_student);
}

TEST_CASE("a consolidation is stopped between two teachers, and begins anew when it is asked for again") {
  const auto worker = joined_worker();
  const Assignment task = consolidation_of_two_teachers();
  Notes stopped(1);
  CHECK(test::code_of([&] { worker->distill(task, stopped.context()); }) == Errc::interrupted);
  CHECK(stopped.done == std::vector<std::int64_t>{num_training});
  const std::string student = worker->distill(task, {}).digest();
  CHECK(student == joined_worker()->distill(task, {}).digest());
}

TEST_CASE("evaluation, logits and statistics report what they have done") {
  const auto worker = joined_worker();
  const wire::PackedState model = model_of(1);
  const auto last_of = [](const auto& work) {
    Notes notes;
    work(notes.context());
    CHECK(notes.are_of_one_whole());
    return notes.done.empty() ? 0 : notes.done.back();
  };
  CHECK(last_of([&](const TaskContext& context) { worker->evaluate(model, std::nullopt, context); }) == num_held_out);
  CHECK(last_of([&](const TaskContext& context) { worker->evaluate(model, small_terms().model, context); }) ==
        num_held_out);
  CHECK(last_of([&](const TaskContext& context) { worker->reestimate_statistics(model, context); }) == num_training);
  worker->pretrain({});
  const auto samples =
      wire::PackedState::of_tensor("samples", torch::randn({300, 1, 12, 12}, learn::generator(Seed(1))));
  CHECK(last_of([&](const TaskContext& context) { worker->logits(samples, context); }) == 300);
}

TEST_CASE(
    "an evaluation has scores where they are asked for, and the word of the silo where it is asked and gives it") {
  const wire::PackedState model = model_of(1);
  const auto figures_of = [&](client::Worker& worker, const plan::EvaluateSettings& settings) {
    const Assignment task{std::string(plan::task::evaluate),
                          plan::to_json_text(settings),
                          {test::Consolidation::input(plan::input::model, model)}};
    return plan::evaluation_figures_from_json_text(worker.perform(task, {}).figures, 3, num_held_out);
  };
  for (const bool shows : {false, true}) {
    const auto worker = test::small_worker(silo, {.shows_metrics = shows});
    worker->join(small_terms());
    const auto plain = figures_of(*worker, {});
    CHECK_FALSE(plain.is_shown);
    CHECK_FALSE(plain.counts.scores.has_value());
    CHECK(figures_of(*worker, {.by_silo = true}).is_shown == shows);
    const auto scored = figures_of(*worker, {.counts_scores = true});
    CHECK_FALSE(scored.is_shown);
    REQUIRE(scored.counts.scores.has_value());
    CHECK(scored.counts.correct == plain.counts.correct);
    CHECK(scored.counts.loss_sum == plain.counts.loss_sum);
  }
}

TEST_CASE("evaluation and statistics end where they are told to stop") {
  const auto worker = joined_worker();
  const wire::PackedState model = model_of(1);
  std::stop_source stop;
  stop.request_stop();
  const TaskContext context{.progress = {}, .stop = stop.get_token()};
  CHECK(test::code_of([&] { worker->evaluate(model, std::nullopt, context); }) == Errc::interrupted);
  CHECK(test::code_of([&] { worker->reestimate_statistics(model, context); }) == Errc::interrupted);
  CHECK(worker->evaluate(model, std::nullopt, {}).num_samples() == num_held_out);
}

TEST_CASE("a silo trains on what the run's terms make of its stored values, its class folders by their names") {
  const learn::Samples own = test::small_samples(silo);
  learn::Dataset data{.name = "images",
                      .images = (own.x * 20 + 100).clamp(0, 255).to(at::kByte),
                      .labels = own.y.clamp(0, 1),
                      .num_classes = 2,
                      .mean = {0.9},
                      .deviation = {0.1}};
  data.classes = {"cat", "eel"};
  data.class_source = learn::ClassSource::folders;
  plan::Terms terms = small_terms();
  terms.samples = {.classes = {"ant", "cat", "eel"},
                   .stored = learn::Stored::uint8,
                   .range = {0, 1},
                   .mean = {0.25},
                   .deviation = {0.5}};
  LocalWorker worker({.name = "silo"}, data);
  const wire::Join join = worker.join(terms);
  CHECK_FALSE(join.schema.value.empty());
  CHECK(join.num_classes == 3);
  const learn::Samples& training = worker.silo().training();
  CHECK(training.y.min().item<std::int64_t>() == 1);
  CHECK(training.y.max().item<std::int64_t>() == 2);
  CHECK(training.x.min().item<float>() >= -0.5F);
  CHECK(training.x.max().item<float>() <= 1.5F);
  REQUIRE(worker.remarks().size() == 2);
  CHECK(worker.remarks()[0] == R"(no samples of "ant" are here)");
  CHECK(worker.remarks()[1].find("0.25 and 0.5") != std::string::npos);

  // What does not fit is for the server to refuse, with both lists.
  terms.samples.classes = {"ant", "Cat", "eel"};
  const wire::Join misfit = worker.join(terms);
  CHECK(misfit.schema.value.empty());
  const plan::SampleReport report = plan::report_from_json_text(misfit.samples.value);
  CHECK(report.classes.names == data.classes);
  CHECK(report.figures.stored == learn::Stored::uint8);
}

TEST_CASE("another file than the server's script is not taken for it") {
  plan::Terms terms = small_terms();
  terms.architecture = "cnn of another kind";
  const auto worker = test::small_worker(silo);
  CHECK(worker->join(terms).schema.value.empty());
}

/// What the process's logger is told while this lives.
class Log {
 public:
  Log() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text)));
  }
  ~Log() { spdlog::set_default_logger(before_); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  std::ostringstream text;

 private:
  std::shared_ptr<spdlog::logger> before_;
};

TEST_CASE("a store without room costs no finished pre-training: the model is used, and the log says what was lost") {
  const test::TemporaryFolder folder;
  SiloOptions options;
  options.store = folder / "store";
  const auto worker = joined_worker(options);
  std::filesystem::remove_all(folder / "store/models");
  std::ofstream(folder / "store/models") << "no folder";
  {
    const Log log;
    const plan::Pretraining done = worker->pretrain({});
    CHECK(done.num_epochs > 0);
    CHECK_FALSE(static_cast<bool>(done.is_reused));
    CHECK(log.text.str().find("store/models") != std::string::npos);
    CHECK(log.text.str().find("trains it again") != std::string::npos);
  }
  Notes untrained;
  const std::string used = worker->pretrained(untrained.context()).digest();
  CHECK(untrained.done.empty());

  std::filesystem::remove(folder / "store/models");
  std::filesystem::create_directory(folder / "store/models");
  const auto restarted = joined_worker(options);
  CHECK_FALSE(static_cast<bool>(restarted->pretrain({}).is_reused));
  CHECK(restarted->pretrained({}).digest() == used);
  CHECK(static_cast<bool>(joined_worker(options)->pretrain({}).is_reused));
}

TEST_CASE("a store that cannot be made costs no run: the model is used, and log and check say what is wrong") {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "file") << "no folder";
  SiloOptions options;
  options.store = folder / "file/\x1b[2Jstore";
  {
    const Log log;
    const auto worker = joined_worker(options);
    CHECK(log.text.str().find("store.pretrained: ") != std::string::npos);
    CHECK(log.text.str().find("kept in memory only") != std::string::npos);
    CHECK_FALSE(worker->pretrain({}).is_reused);
    Notes untrained;
    CHECK(worker->pretrained(untrained.context()).bytes().size() > 0);
    CHECK(untrained.done.empty());
  }
  const auto tell = [](const std::string&) { FAIL("nothing holds"); };
  const std::string message = test::error_of(Errc::storage, [&] { check_store(*options.store, tell); });
  CHECK(message.find("store.pretrained: ") != std::string::npos);
  CHECK(message.find("would train its model again") != std::string::npos);

  std::string told;
  check_store(folder / "store", [&told](const std::string& words) { told = words; });
  CHECK(told.find("pre-trained models are kept in") != std::string::npos);
  CHECK(std::filesystem::is_empty(folder / "store/models"));
  CHECK(std::filesystem::is_empty(folder / "store/index"));
}

TEST_CASE("a scripted model of the silo's own: its log says where it does not teach") {
  SiloOptions options;
  options.own_model = learn::ModelSpec{};
  const auto words = [&options] {
    const Log log;
    // The script takes other samples than this silo's, which is refused after that.
    (void)test::code_of([&options] { joined_worker(options); });
    return log.text.str();
  };
  options.own_model->channels = {2, 2};
  CHECK(words().empty());
  options.own_model->name = "script:tests/golden/scripted/gated.pt";
  CHECK(words().find("does not teach where the run distils on student data") != std::string::npos);
}

Assignment answering(std::string_view kind, const at::Tensor& samples) {
  Assignment assignment{std::string(kind), {}, {}};
  if (kind == plan::task::answers) assignment.settings = plan::to_json_text(plan::AnswerSettings{});
  assignment.inputs = {
      test::Consolidation::input(plan::input::samples, wire::PackedState::of_tensor("samples", samples))};
  return assignment;
}

TEST_CASE("answers: samples as they are stored are answered like those that are normalised already") {
  plan::Terms terms = small_terms();
  terms.samples.mean = {0.4};
  terms.samples.deviation = {0.2};
  const at::Tensor stored =
      torch::randint(256, {9, 1, 12, 12}, learn::generator(Seed(8)), torch::kLong).to(torch::kByte);
  const at::Tensor normalised = (stored.to(torch::kFloat) / 255 - 0.4F) / 0.2F;
  const auto answers_to = [&](const at::Tensor& samples) {
    test::DelegatingWorker worker(test::small_worker(silo));
    worker.join(terms);
    Notes notes;
    const TaskResult result = worker.perform(answering(plan::task::answers, samples), notes.context());
    return learn::unpacked_answers(result.state->state().tensors().front().tensor, 27, 16);
  };
  const at::Tensor of_stored = answers_to(stored);
  CHECK((of_stored - answers_to(normalised)).abs().max().item<std::int64_t>() <= 2);
  CHECK(of_stored.sum().item<std::int64_t>() > 0);
}

TEST_CASE("share_model answers: the client itself lets neither model nor logits leave, whatever the server asks for") {
  const auto worker = joined_worker({.name = {}, .own_model = {}, .script = {}, .store = {}, .withholds_model = true});
  const at::Tensor samples = torch::zeros({3, 1, 12, 12});
  Notes notes;
  const auto refusal = [&](const Assignment& assignment) {
    return test::error_of(Errc::usage, [&] { worker->perform(assignment, notes.context()); });
  };
  for (const std::string_view kind : {plan::task::logits, plan::task::densities}) {
    CHECK(refusal(answering(kind, samples)).find("share_model here is answers") != std::string::npos);
  }
  CHECK(refusal({std::string(plan::task::exchange), {}, {}}).find("share_model here is answers") != std::string::npos);
  CHECK(worker->perform(answering(plan::task::answers, samples), notes.context()).state.has_value());
}

}  // namespace
}  // namespace headstart::client

#include "experiments/lab/pair_study.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <sstream>
#include <thread>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/study_view.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/wire/safetensors.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::lab {
namespace {

using Rows = std::map<std::string, nlohmann::json>;

/// A data set of separable images on disk, balanced, and studies over it.
class SmallStudy {
 public:
  SmallStudy() {
    write(learn::Split::train, 480, Seed(1));
    write(learn::Split::test, 160, Seed(2));
    study.settings.data = {.set = "tensors", .path = (folder / "data").string()};
    study.settings.draws = {
        .validation = 40, .public_large = 80, .public_small = 20, .public_labeled = 40, .clients = 240, .test = 160};
    study.settings.partition.num_clients = 3;
    study.settings.model = test::small_spec(learn::Norm::batch);
    study.settings.pretrain.max_epochs = 3;
    study.settings.kd.epochs = 2;
    study.settings.grid = {.temperatures = {1, 3}, .alphas = {0.5, 0.9}};
    study.plan.num_searched_pairs = 2;
  }

  /// Runs to the end and returns the metrics of all cells.
  Rows run(const std::string& name, Share share = {}, std::stop_token stop = {}, StudyObserver* observer = nullptr) {
    const StudyData data = load_study_data(study.settings.data);
    StudyStore store(folder / name, description_of(study, data));
    StudyObserver silent;
    run_pair_study(study, data, store, {.share = share, .num_jobs = 2, .models = folder / "models"},
                   observer != nullptr ? *observer : silent, std::chrono::steady_clock::now, std::move(stop));
    return rows(store);
  }
  static Rows rows(const StudyStore& store) {
    Rows result;
    store.for_each_done([&result](const DoneCell& done) { result[done.cell.key] = done.result.metrics; });
    return result;
  }
  nlohmann::json description() const { return description_of(study, load_study_data(study.settings.data)); }
  /// The data lie elsewhere from now on.
  void move_data(const std::string& name) {
    std::filesystem::rename(study.settings.data.path, folder / name);
    study.settings.data.path = (folder / name).string();
  }

  void write(learn::Split split, std::int64_t count, Seed seed, const std::string& name = "data") const {
    const learn::Samples samples = test::separable_samples(4 * count, seed);
    std::vector<std::int64_t> balanced;
    std::vector<std::int64_t> taken(4, 0);
    for (std::int64_t i = 0; i < samples.size(); ++i) {
      const auto label = static_cast<std::size_t>(samples.y[i].item<std::int64_t>());
      if (taken[label] < count / 4) balanced.push_back(i);
      ++taken[label];
    }
    const learn::Dataset dataset{.name = "separable", .images = samples.x, .labels = samples.y, .num_classes = 4};
    learn::save_tensors(dataset, balanced, split, folder / name);
  }

  test::TemporaryFolder folder;
  PairStudy study;
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

double number(const nlohmann::json& metrics, const char* name) { return metrics.at(name).get<double>(); }

TEST_CASE("pair study: every method, transfer set and pair once, and what a row says adds up") {
  SmallStudy small;
  small.study.plan.methods = {PairMethod::vanilla,  PairMethod::tuned,       PairMethod::grid,
                              PairMethod::mutual,   PairMethod::partitioned, PairMethod::partitioned_unsupervised,
                              PairMethod::automatic};
  const Rows rows = small.run("study.sqlite");
  CHECK(rows.size() == 3 + 4 * (4 * 6 + 3 * 2));
  for (const auto& [key, metrics] : rows) {
    if (!metrics.contains("gain")) continue;
    CAPTURE(key);
    // The test set is balanced.
    CHECK(number(metrics, "gain") ==
          doctest::Approx(number(metrics, "learning") - number(metrics, "forgetting")).epsilon(1e-12));
    CHECK(number(metrics, "accuracy") == doctest::Approx(number(metrics, "start") + number(metrics, "gain")));
    CHECK(metrics.at("is_strong").get<bool>() == (number(metrics, "teacher") > number(metrics, "start")));
    const auto classes = metrics.at("class_accuracy").get<std::vector<double>>();
    CHECK(std::accumulate(classes.begin(), classes.end(), 0.0) / 4 == doctest::Approx(number(metrics, "accuracy")));
  }
  const auto pair = [&rows](const char* transfer, const char* method, int teacher, int student) {
    return rows.at(fmt::format("label-dirichlet/seed-1/{}/{}/{}-to-{}", transfer, method, teacher, student));
  };
  for (int p = 0; p < 3; ++p) {
    for (int q = 0; q < 3; ++q) {
      if (p == q) continue;
      // The position table: P as the student of q, and as q's teacher, both relative to P's own start.
      const nlohmann::json taught = pair("student", "vanilla", q, p);
      const nlohmann::json teaching = pair("student", "vanilla", p, q);
      const double start_p = number(taught, "start");
      const double start_q = number(teaching, "start");
      const double as_teacher = number(teaching, "accuracy") - start_p;
      CHECK(as_teacher - number(teaching, "gain") == doctest::Approx(start_q - start_p));
      CHECK(number(taught, "teacher") == start_q);
      // Where the rule says unsupervised, the two words are one method.
      CHECK(pair("student", "dp-kd", p, q) == pair("student", "dp-kd-unsupervised", p, q));
    }
  }
}

TEST_CASE("pair study: a search finds what vanilla finds at that setting, and the best of what it tried") {
  SmallStudy small;
  small.study.plan.methods = {PairMethod::vanilla, PairMethod::tuned, PairMethod::grid};
  small.study.plan.num_pairs = 2;
  const Rows rows = small.run("study.sqlite");
  std::int64_t num_compared = 0;
  for (const auto& [key, metrics] : rows) {
    if (key.find("/grid/") == std::string::npos) continue;
    CAPTURE(key);
    const auto sibling = [&](const char* method) {
      std::string other = key;
      return rows.at(other.replace(key.find("/grid/"), 6, fmt::format("/{}/", method)));
    };
    const bool has_labels = !metrics.at("alpha").is_null();
    CHECK(metrics.at("trials").size() == (has_labels ? 4 : 2));
    double best = 0;
    for (const nlohmann::json& trial : metrics.at("trials")) {
      best = std::max(best, number(trial, "validation_accuracy"));
      const bool is_vanilla = number(trial, "temperature") == 1 && (!has_labels || number(trial, "alpha") == 0.5);
      if (!is_vanilla) continue;
      ++num_compared;
      CHECK(number(trial, "accuracy") == number(sibling("vanilla"), "accuracy"));
      CHECK(number(trial, "validation_loss") == number(sibling("vanilla").at("validation"), "loss"));
    }
    CHECK(number(metrics.at("validation"), "accuracy") == best);
    CHECK(metrics.at("epochs") == 2 * (has_labels ? 4 : 2));
    CHECK(sibling("tuned").at("epochs") == 2 * (has_labels ? 3 : 2));
    // With two temperatures, one of them 1, the stages miss one setting of the labeled grid.
    CHECK(number(sibling("tuned").at("validation"), "accuracy") <= best);
  }
  CHECK(num_compared == 8);
}

TEST_CASE("pair study: the measure is a setting of the cells: ce and kl agree, js does not") {
  SmallStudy small;
  small.study.plan.methods = {PairMethod::vanilla, PairMethod::partitioned, PairMethod::mutual};
  small.study.plan.transfers = {PairTransfer::student, PairTransfer::public_small};
  small.study.plan.num_pairs = 2;
  std::map<std::string, Rows> by_measure;
  for (const char* measure : {"ce", "kl", "js"}) {
    small.study.settings.kd.measure = measure;
    by_measure[measure] = small.run(fmt::format("{}.sqlite", measure));
  }
  std::int64_t num_distilled = 0;
  for (const auto& [key, ce] : by_measure.at("ce")) {
    CAPTURE(key);
    const double loss = ce.at("loss").get<double>();
    CHECK(by_measure.at("kl").at(key).at("loss").get<double>() == doctest::Approx(loss).epsilon(1e-4));
    // Mutual learning has a measure of its own, and a participant alone none.
    const bool is_measured = key.find("/vanilla/") != std::string::npos || key.find("/dp-kd/") != std::string::npos;
    CHECK((by_measure.at("js").at(key).at("loss") != ce.at("loss")) == is_measured);
    num_distilled += is_measured ? 1 : 0;
  }
  CHECK(num_distilled == 8);
}

/// Asks for a stop when `left` cells are done.
class StoppingObserver final : public StudyObserver {
 public:
  explicit StoppingObserver(int left) : left_(left) {}
  void on_cell(const DoneCell& /*cell*/, const CellCounts& /*counts*/) override {
    if (--left_ == 0) stop.request_stop();
  }
  std::stop_source stop;

 private:
  int left_;
};

TEST_CASE("pair study: interrupted anywhere and gone on with, it is the study that was not") {
  SmallStudy small;
  small.study.plan.transfers = {PairTransfer::student, PairTransfer::public_small};
  const Rows whole = small.run("whole.sqlite");
  for (const int stop_after : {1, 3, 4, 20, 30}) {
    const std::string name = fmt::format("stopped-{}.sqlite", stop_after);
    StoppingObserver observer(stop_after);
    CHECK(test::code_of([&] { small.run(name, {}, observer.stop.get_token(), &observer); }) == Errc::interrupted);
    {
      const StudyStore store(small.folder / name);
      CHECK(store.counts().done >= stop_after);
      CHECK(store.counts().done < std::ssize(whole));
    }
    CHECK(small.run(name) == whole);
  }
}

TEST_CASE("pair study: two workers on one study do no cell twice, and find what one finds") {
  SmallStudy small;
  small.study.plan.transfers = {PairTransfer::student};
  const Rows alone = small.run("alone.sqlite");
  std::map<std::string, int> times;
  std::mutex mutex;
  struct Counting final : StudyObserver {
    Counting(std::map<std::string, int>& counted, std::mutex& guard) : times(counted), mutex(guard) {}
    void on_cell(const DoneCell& done, const CellCounts& /*counts*/) override {
      const std::scoped_lock lock(mutex);
      ++times[done.cell.key];
    }
    std::map<std::string, int>& times;
    std::mutex& mutex;
  };
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < 2; ++i) {
      workers.emplace_back([&] {
        Counting counting(times, mutex);
        CHECK(small.run("shared.sqlite", {}, {}, &counting) == alone);
      });
    }
  }
  CHECK(times.size() == alone.size());
  for (const auto& [key, count] : times) CHECK(count == 1);
}

TEST_CASE("pair study: the shares of three machines, merged, are the whole") {
  SmallStudy small;
  small.study.plan.transfers = {PairTransfer::student, PairTransfer::public_labeled};
  const Rows whole = small.run("whole.sqlite");
  StudyStore merged(small.folder / "merged.sqlite", small.description());
  std::size_t num_rows = 0;
  for (std::int64_t i = 0; i < 3; ++i) {
    const std::string name = fmt::format("share-{}.sqlite", i);
    small.move_data(fmt::format("data-{}", i));  // no machine has them where another has
    num_rows += small.run(name, {.index = i, .count = 3}).size();
    merged.merge(StudyStore(small.folder / name));
  }
  CHECK(num_rows == whole.size() + 2 * 3);  // each has the participants
  CHECK(SmallStudy::rows(merged) == whole);
}

TEST_CASE("pair study: where the data lie is no part of it, what they are is") {
  SmallStudy small;
  small.study.plan.transfers = {PairTransfer::student};
  const Rows whole = small.run("whole.sqlite");
  StoppingObserver observer(9);
  CHECK(test::code_of([&] { small.run("study.sqlite", {}, observer.stop.get_token(), &observer); }) ==
        Errc::interrupted);
  small.move_data("elsewhere");
  CHECK(small.run("study.sqlite") == whole);
  const nlohmann::json description = StudyStore(small.folder / "study.sqlite").settings();
  const StudyData data = load_study_data(small.study.settings.data);
  CHECK_NOTHROW(require_data_of(description, data, "study.sqlite"));
  const StudyData swapped{data.test, data.train};
  CHECK(has(test::error_of(Errc::data, [&] { require_data_of(description, swapped, "study.sqlite"); }),
            "study.sqlite: the study is of other data (data.train_digest was '" + data.train.digest()));
  small.write(learn::Split::train, 480, Seed(3), "other");
  small.write(learn::Split::test, 160, Seed(2), "other");
  small.study.settings.data.path = (small.folder / "other").string();
  CHECK(has(test::error_of(Errc::usage, [&] { small.run("study.sqlite"); }), "data.train_digest was"));
}

TEST_CASE("pair study: a cell is repeatable from its row alone") {
  SmallStudy small;
  small.study.plan.num_pairs = 1;
  small.study.plan.num_searched_pairs = 1;
  small.run("study.sqlite");
  const StudyStore store(small.folder / "study.sqlite");
  std::vector<DoneCell> cells;
  store.for_each_done([&cells](const DoneCell& done) { cells.push_back(done); });
  CHECK(cells.size() == 3 + 4 * 4);
  const StudyData data = load_study_data(pair_cell_of(cells.front().cell).settings.data);
  for (const DoneCell& done : cells) {
    CAPTURE(done.cell.key);
    // Without the store of pre-trained models.
    const CellResult again =
        compute_pair_cell(done.cell, data, small.folder / "other-models", std::chrono::steady_clock::now);
    CHECK(again.metrics == done.result.metrics);
    CHECK(to_cell(pair_cell_of(done.cell)).settings == done.cell.settings);
  }
}

TEST_CASE("pair study: pairs are spread over the order of differences") {
  const std::vector<Strength> strengths = {{0.9}, {0.1}, {0.5}, {0.7}};
  CHECK(spread_pairs(strengths, 0).size() == 12);
  CHECK(spread_pairs(strengths, 12).size() == 12);
  const auto difference = [&](const std::pair<std::int64_t, std::int64_t>& pair) {
    return strengths[static_cast<std::size_t>(pair.first)].validation_accuracy -
           strengths[static_cast<std::size_t>(pair.second)].validation_accuracy;
  };
  for (const std::int64_t count : {1, 2, 3, 4, 6}) {
    const auto pairs = spread_pairs(strengths, count);
    REQUIRE(std::ssize(pairs) == count);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      CHECK(pairs[i].first != pairs[i].second);
      if (i > 0) CHECK(difference(pairs[i - 1]) <= difference(pairs[i]));
    }
    // As many weak teachers as strong ones.
    if (count % 2 == 0) {
      CHECK(std::ranges::count_if(pairs, [&](const auto& pair) { return difference(pair) > 0; }) == count / 2);
    }
  }
}

std::string refusal_of(const PairStudy& study) {
  return test::error_of(Errc::usage, [&] { check(study); });
}

TEST_CASE("pair study: what cannot be is refused by name") {
  const PairStudy sound;
  CHECK(refusal_of(sound) == "(no error)");
  PairStudy study = sound;
  study.settings.draws.public_small = 0;
  CHECK(has(refusal_of(study), "public-small, which is empty: draw.public_small is 0"));
  study.plan.transfers = {PairTransfer::public_large};
  study.plan.methods = {PairMethod::partitioned_supervised};
  CHECK(has(refusal_of(study), "dp-kd-supervised, and public-large has no labels"));
  study = sound;
  study.plan.seeds.clear();
  CHECK(has(refusal_of(study), "study.seeds"));
  study = sound;
  study.settings.draws.validation = 0;
  CHECK(has(refusal_of(study), "draw.validation"));
  study = sound;
  study.settings.kd.measure = "msed";
  CHECK(has(refusal_of(study), "kd.measure=msed"));
  for (const char* text : {"", "1", "1/", "/3", "3/3", "-1/3", "1/3x", "a/b", "1/0"}) {
    CAPTURE(text);
    CHECK(test::code_of([&] { share_of(text); }) == Errc::usage);
  }
  CHECK(share_of("2/5").index == 2);
  CHECK(share_of("2/5").count == 5);
}

TEST_CASE("pair study: a partition with too few samples says so, and nothing is lost") {
  SmallStudy small;
  small.study.settings.draws.clients = 8;
  const std::string refusal = test::error_of(Errc::usage, [&] { small.run("study.sqlite"); });
  CHECK(has(refusal, "min_samples"));
  CHECK(StudyStore(small.folder / "study.sqlite").counts().total == 3);
}

TEST_CASE("pair study: a class that nobody has seen is part of the figures") {
  SmallStudy small;
  small.study.settings.partition.kind = "specialized";
  small.study.plan.partitions = {"specialized"};
  small.study.settings.partition.specialized_share = 1;
  small.study.settings.partition.num_clients = 2;
  small.study.plan.methods = {PairMethod::vanilla, PairMethod::partitioned};
  for (const auto& [key, metrics] : small.run("study.sqlite")) {
    if (!metrics.contains("gain")) continue;
    CHECK(number(metrics, "gain") ==
          doctest::Approx(number(metrics, "learning") - number(metrics, "forgetting")).epsilon(1e-12));
  }
}

TEST_CASE("pair study: models of the user's own") {
  SmallStudy small;
  small.study.plan.methods = {PairMethod::vanilla};
  small.study.plan.transfers = {PairTransfer::public_small};
  const std::filesystem::path own = small.folder / "own";
  std::filesystem::create_directories(own);
  small.study.settings.participants = own.string();
  const learn::Task task = test::small_task;
  const auto save = [&](const std::string& name, const learn::ModelSpec& spec, const learn::Task& of) {
    wire::save_safetensors(own / name, wire::PackedState(learn::make_model(spec, of, Seed(5))->state()));
  };
  save("silo-0.safetensors", small.study.settings.model, task);
  // Of another architecture: its settings stand beside it.
  save("silo-1.safetensors", test::small_spec(learn::Norm::none), task);
  write_text_atomically(own / "silo-1.json", R"({"model": {"norm": "none"}})");
  const auto refusal = [&] { return test::error_of(Errc::data, [&] { small.run("study.sqlite"); }); };
  CHECK(has(refusal(), "silo-2.safetensors: is not there"));
  wire::save_safetensors(own / "silo-2.safetensors",
                         wire::PackedState(learn::make_model(small.study.settings.model, task, Seed(5))->state()),
                         {{"mean", "[0.3]"}});
  CHECK(has(refusal(), "silo-2.safetensors: its mean is '[0.3]', that of the data here is '[0.0]'"));
  learn::Task other = task;
  other.num_classes = 5;
  save("silo-2.safetensors", small.study.settings.model, other);
  CHECK(has(refusal(), "silo-2.safetensors: is no cnn"));
  CHECK(has(refusal(), "for samples of 1x12x12 in 4 classes"));
  write_text_atomically(own / "silo-2.safetensors", "not a model");
  CHECK(has(refusal(), "silo-2.safetensors"));
  save("silo-2.safetensors", small.study.settings.model, task);
  const Rows rows = small.run("study.sqlite");
  CHECK(rows.size() == 3 + 6);
  CHECK(rows.at("label-dirichlet/seed-1/participant-1").at("architecture") !=
        rows.at("label-dirichlet/seed-1/participant-0").at("architecture"));
}

TEST_CASE("pair study: what a person sees") {
  SmallStudy small;
  small.study.plan.transfers = {PairTransfer::student};
  TimePoint now{};
  std::ostringstream out;
  StudyView view(out, StudyView::Style::plain, [&now] { return now += std::chrono::seconds(4); });
  small.run("study.sqlite", {}, {}, &view);
  CHECK(has(out.str(), "3 of 3 cells"));
  CHECK(has(out.str(), "23 of 23 cells"));
  CHECK(has(out.str(), "left; label-dirichlet/seed-1/student/"));
  const std::string summary = pair_summary(StudyStore(small.folder / "study.sqlite"));
  CHECK(has(summary, "label-dirichlet  student         tuned                   2"));
  CHECK(has(summary, "label-dirichlet  student         vanilla                 6"));
}

}  // namespace
}  // namespace headstart::lab

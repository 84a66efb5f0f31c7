#include "experiments/lab/advisor.hpp"

#include <sstream>

#include <doctest/doctest.h>

#include "server/config/server_config.hpp"
#include "shared/base/error.hpp"
#include "tests/support/throws.hpp"

namespace headstart::lab {
namespace {

bool has(const std::vector<std::string>& sentences, const std::string& part) {
  for (const std::string& sentence : sentences) {
    if (sentence.find(part) != std::string::npos) return true;
  }
  return false;
}

TEST_CASE("advice: with labels to tune with, tuned distillation on the largest set") {
  const Advice advice = advise({.has_validation = true, .student_samples = 540, .public_unlabeled = 5000});
  CHECK(advice.method == PairMethod::automatic);
  CHECK(advice.transfer == PairTransfer::public_large);
  CHECK(advice.copy_teaches);
  CHECK_FALSE(advice.temperature);
  CHECK(has(advice.reasons, "larger ones help more"));
  CHECK(advise({.has_validation = true, .student_samples = 6000, .public_unlabeled = 5000}).transfer ==
        PairTransfer::student);
}

TEST_CASE("advice: without any labels vanilla with the student's copy, and never mutual learning") {
  for (const TeacherStrength teacher : {TeacherStrength::stronger, TeacherStrength::weaker, TeacherStrength::unknown}) {
    const Advice skewed = advise({.public_unlabeled = 500, .teacher = teacher});
    CHECK(skewed.method == PairMethod::vanilla);
    CHECK(skewed.transfer == PairTransfer::public_small);
    CHECK(skewed.copy_teaches);
    CHECK_FALSE(skewed.alpha);
    CHECK(has(skewed.reasons, "Under class imbalance"));
    const Advice balanced = advise({.public_unlabeled = 500, .teacher = teacher, .balance = ClassBalance::balanced});
    CHECK(balanced.method == PairMethod::vanilla);
    CHECK(has(balanced.reasons, "dp-kd) would do as well"));
  }
  CHECK(*advise({.public_unlabeled = 500, .teacher = TeacherStrength::stronger}).temperature > 1);
  CHECK(*advise({.public_unlabeled = 500, .teacher = TeacherStrength::weaker}).temperature < 1);
  CHECK(advise({.public_unlabeled = 500}).temperature == 1);
}

TEST_CASE("advice: labels without tuning: vanilla from a stronger teacher, mutual learning with a weaker one") {
  const Advice strong = advise({.student_samples = 600, .teacher = TeacherStrength::stronger});
  CHECK(strong.method == PairMethod::vanilla);
  CHECK(strong.transfer == PairTransfer::student);
  CHECK_FALSE(strong.copy_teaches);
  CHECK(*strong.alpha > 0.5);
  CHECK(*strong.temperature > 1);
  CHECK(has(strong.reasons, "rules out data partitioning"));
  CHECK_FALSE(has(
      advise({.student_samples = 600, .teacher = TeacherStrength::stronger, .balance = ClassBalance::balanced}).reasons,
      "rules out data partitioning"));
  // Mutual learning needs the labels, so the larger set without them does not serve.
  const Advice weak = advise(
      {.student_samples = 400, .public_unlabeled = 5000, .public_labeled = 500, .teacher = TeacherStrength::weaker});
  CHECK(weak.method == PairMethod::mutual);
  CHECK(weak.transfer == PairTransfer::public_labeled);
  CHECK_FALSE(weak.temperature);
  const Advice unknown = advise({.student_samples = 400});
  CHECK(unknown.method == PairMethod::vanilla);
  CHECK(unknown.temperature == 1);
  CHECK(unknown.alpha == 0.5);
}

TEST_CASE("advice: nothing to distil on is said") {
  CHECK(test::code_of([] { advise({.has_validation = true}); }) == Errc::usage);
  CHECK(test::code_of([] { advise({}, {}); }) == Errc::usage);
}

/// A row whose gain on the test set and on validation data is the same.
DoneCell row(PairMethod method, PairTransfer transfer, std::int64_t teacher, double gain, bool is_strong = true,
             double temperature = 1) {
  PairCell cell{.transfer = transfer, .method = method, .teacher = teacher, .student = 9};
  nlohmann::json metrics = {
      {"gain", gain},
      {"is_strong", is_strong},
      {"temperature", temperature},
      {"alpha", 0.25},
      {"validation", {{"start", 0.5}, {"teacher", is_strong ? 0.6 : 0.4}, {"accuracy", 0.5 + gain}}}};
  if (method == PairMethod::mutual) metrics["temperature"] = metrics["alpha"] = nullptr;
  return {to_cell(cell), {metrics, 1, "0.1.0"}};
}

void gains(DoneCell& cell, double on_validation, double on_test) {
  cell.result.metrics["gain"] = on_test;
  cell.result.metrics["validation"]["accuracy"] = 0.5 + on_validation;
}

TEST_CASE("advice: validation data rank, whatever the test set says, and are named") {
  std::vector<DoneCell> cells;
  for (std::int64_t teacher = 0; teacher < 3; ++teacher) {
    cells.push_back(row(PairMethod::vanilla, PairTransfer::student, teacher, 0));
    gains(cells.back(), 0.04, 0.01);
    cells.push_back(row(PairMethod::mutual, PairTransfer::student, teacher, 0));
    gains(cells.back(), 0.02, 0.09);
  }
  const Situation situation{.student_samples = 600, .teacher = TeacherStrength::stronger};
  const Advice advice = advise(situation, cells);
  CHECK(advice.method == PairMethod::vanilla);
  CHECK(has(advice.reasons, "vanilla on student gains +4.0 points on validation data"));
  CHECK(has(advice.reasons, "On the test set, which decides nothing, it gains +1.0 points"));
  CHECK(has(advice.reasons, "Next: dml on student, +2.0 points over 3"));

  // By the test set the teachers would be weaker ones: that decides nothing either.
  for (DoneCell& cell : cells) cell.result.metrics["is_strong"] = false;
  CHECK(advise(situation, cells).rows.size() == 3);

  // A test gain alone does not save a method that validation data reject.
  for (DoneCell& cell : cells) gains(cell, -0.01, 0.05);
  CHECK_FALSE(advise(situation, cells).method);

  for (DoneCell& cell : cells) cell.result.metrics.erase("validation");
  for (DoneCell& cell : cells) cell.result.metrics["is_strong"] = true;
  const Advice by_test = advise(situation, cells);
  CHECK(by_test.method);
  CHECK(has(by_test.reasons, "no validation gains for all such pairs: the test set decides"));
}

/// The configuration of a server that is given the advised words.
server::ServerConfig config_of(const std::string& words) {
  server::ServerConfig config;
  Fields fields;
  server::declare_fields(fields, config);
  std::istringstream parts(words);
  for (std::string part; parts >> part;) {
    if (part != "--set") fields.set(part);
  }
  server::check(config);
  return config;
}

TEST_CASE("advice: a federation takes the line as it stands, or is told why there is none") {
  const Advice vanilla = advise({.student_samples = 600, .teacher = TeacherStrength::stronger});
  const server::ServerConfig config = config_of(vanilla.federation);
  CHECK(config.federation.start == server::StartModel::kd);
  CHECK(config.federation.consolidation.transfer == server::TransferSet::student);
  CHECK(config.federation.validation == server::ValidationSource::federated);
  CHECK(config.terms.consolidation.temperature == 3);
  CHECK(config.terms.consolidation.alpha == 0.75);
  CHECK(text_of(vanilla).find("federation    --set start.model=kd ") != std::string::npos);

  const server::ServerConfig tuned = config_of(advise({.has_validation = true, .public_unlabeled = 500}).federation);
  CHECK(tuned.federation.consolidation.tune == server::SettingChoice::automatic);
  CHECK(tuned.federation.consolidation.transfer == server::TransferSet::public_small);
  CHECK(tuned.federation.validation == server::ValidationSource::server);

  const Advice mutual = advise({.student_samples = 600, .teacher = TeacherStrength::weaker});
  CHECK(mutual.federation.empty());
  CHECK(text_of(mutual).find("federation    none: a federation has no dml") != std::string::npos);
  const Advice labeled = advise({.has_validation = true, .public_labeled = 500});
  CHECK(labeled.federation_note == "none: a federation distils on no labeled public set");
}

TEST_CASE("advice: with a study it rests on the rows like the case, quotes them, and changes when they do") {
  const Situation situation{.student_samples = 600, .public_unlabeled = 5000, .teacher = TeacherStrength::weaker};
  std::vector<DoneCell> cells;
  for (std::int64_t teacher = 0; teacher < 4; ++teacher) {
    cells.push_back(row(PairMethod::vanilla, PairTransfer::student, teacher, 0.01, false));
    cells.push_back(row(PairMethod::mutual, PairTransfer::student, teacher, 0.05, false));
    cells.push_back(row(PairMethod::vanilla, PairTransfer::public_large, teacher, 0.03, false));
    // Of no use to this user: another strength, a set that is not there, a method that needs validation labels.
    cells.push_back(row(PairMethod::partitioned, PairTransfer::student, teacher, 0.5, true));
    cells.push_back(row(PairMethod::mutual, PairTransfer::public_labeled, teacher, 0.5, false));
    cells.push_back(row(PairMethod::tuned, PairTransfer::student, teacher, 0.5, false));
  }
  const Advice advice = advise(situation, cells);
  CHECK(advice.method == PairMethod::mutual);
  CHECK(advice.transfer == PairTransfer::student);
  CHECK_FALSE(advice.temperature);
  CHECK(advice.rows.size() == 4);
  CHECK(advice.rows.front() == "label-dirichlet/seed-1/student/dml/0-to-9");
  CHECK(has(advice.reasons, "dml on student gains +5.0 points on validation data on average over 4 pairs"));
  CHECK(has(advice.reasons, "Next: vanilla on public-large, +3.0 points over 4"));
  CHECK(text_of(advice).find("label-dirichlet/seed-1/student/dml/0-to-9") != std::string::npos);

  for (DoneCell& cell : cells) {
    if (pair_cell_of(cell.cell).transfer == PairTransfer::public_large) gains(cell, 0.08, 0.08);
  }
  const Advice changed = advise(situation, cells);
  CHECK(changed.method == PairMethod::vanilla);
  CHECK(changed.transfer == PairTransfer::public_large);
  CHECK(changed.copy_teaches);

  for (DoneCell& cell : cells) gains(cell, -0.02, -0.02);
  const Advice none = advise(situation, cells);
  CHECK_FALSE(none.method);
  CHECK(none.rows.size() == 4);
  CHECK(has(none.reasons, "better leave the student as it is"));
  CHECK(text_of(none).starts_with("method        none\nfederation    none: "));
  for (DoneCell& cell : cells) {
    if (pair_cell_of(cell.cell).method == PairMethod::tuned) gains(cell, 0.02, 0.02);
  }

  Situation tuning = situation;
  tuning.has_validation = true;
  CHECK(advise(tuning, cells).method == PairMethod::tuned);
}

TEST_CASE("advice: searches are judged on pairs that the other methods have too; their T and alpha are medians") {
  std::vector<DoneCell> cells;
  for (std::int64_t teacher = 0; teacher < 6; ++teacher) {
    // Vanilla was computed for more pairs, and is better on those alone.
    cells.push_back(row(PairMethod::vanilla, PairTransfer::student, teacher, teacher < 3 ? 0.02 : 0.2));
    if (teacher < 3) {
      cells.push_back(
          row(PairMethod::grid, PairTransfer::student, teacher, 0.04, true, static_cast<double>(teacher + 2)));
    }
  }
  const Situation situation{.has_validation = true, .student_samples = 600, .teacher = TeacherStrength::stronger};
  const Advice advice = advise(situation, cells);
  CHECK(advice.method == PairMethod::grid);
  CHECK(advice.temperature == 3);
  CHECK(advice.alpha == 0.25);
  CHECK(has(advice.reasons, "vanilla on student, +2.0 points over 3"));
}

TEST_CASE("advice: a study without such pairs leaves the paper's advice, and says so") {
  const Situation situation{
      .student_samples = 600, .teacher = TeacherStrength::stronger, .balance = ClassBalance::balanced};
  const std::vector<DoneCell> cells = {row(PairMethod::mutual, PairTransfer::student, 1, 0.9)};
  const Advice advice = advise(situation, cells);
  CHECK(advice.method == PairMethod::vanilla);
  CHECK(advice.rows.empty());
  CHECK(has(advice.reasons, "fewer than three finished pairs"));
}

}  // namespace
}  // namespace headstart::lab

#include "shared/learn/data/sample_terms.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

using test::error_of;

void check_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    CAPTURE(part);
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  }
}

std::string misfit_of(const ClassList& own, const std::vector<std::string>& run) {
  return class_misfit(own, run).value_or("");
}

const std::vector<std::string> lungs = {"NORMAL", "PNEUMONIA"};

TEST_CASE("class folders are a part of the run's classes, by their names; else both lists are said") {
  const auto folders = [](std::vector<std::string> names) {
    const std::int64_t count = std::ssize(names);
    return misfit_of({std::move(names), count, ClassSource::folders}, lungs);
  };
  CHECK(folders({"NORMAL", "PNEUMONIA"}).empty());
  CHECK(folders({"PNEUMONIA"}).empty());
  check_contains(folders({"Pneumonia", "normal"}),
                 {R"("Pneumonia", "normal")", R"("NORMAL", "PNEUMONIA")", "upper and lower case"});
  check_contains(folders({"NORMAL", "PNEUMONIA", "covid"}), {R"(no class "covid")"});
  check_contains(misfit_of({{"disk"}, 1, ClassSource::folders}, {"0", "1"}), {"data.classes"});
}

TEST_CASE("names that are stated by label are the run's: the same spelling, order and number") {
  const auto stated = [](std::vector<std::string> names) {
    const std::int64_t count = std::ssize(names);
    return misfit_of({std::move(names), count, ClassSource::stated}, lungs);
  };
  CHECK(stated({"NORMAL", "PNEUMONIA"}).empty());
  check_contains(stated({"PNEUMONIA", "NORMAL"}),
                 {R"("PNEUMONIA", "NORMAL")", R"(label 0 is "PNEUMONIA" here and "NORMAL" in the run)"});
  check_contains(stated({"NORMAL"}), {"there are 1 here and 2 in the run"});
  CHECK(misfit_of({{}, 2, ClassSource::stated}, lungs).empty());
  check_contains(misfit_of({{}, 3, ClassSource::stated}, lungs), {"3 classes", "the run has 2"});
  // Nothing but labels is known: their number is the run's.
  CHECK(misfit_of({{}, 1, ClassSource::labels}, lungs).empty());
}

TEST_CASE("names that look alike can be told apart, and long lists are cut") {
  check_contains(misfit_of({{"Ma\xcc\x88nner"}, 1, ClassSource::folders}, {"M\xc3\xa4nner", "Frauen"}),
                 {R"("Ma\u0308nner")", R"("M\u00e4nner")"});
  const std::string text = list_text(numbered_classes(1000));
  CHECK(text.size() < 200);
  check_contains(text, {R"("0", "1")", "... (1000 in all)"});
}

TEST_CASE("names of classes are one each, and can be shown") {
  CHECK_NOTHROW(require_class_names({"a", "A", "b c", "\xc3\xa4"}));
  for (const std::string& bad : {std::string(), std::string("a\nb"), std::string("\xff"), std::string(257, 'x')}) {
    check_contains(error_of(Errc::data, [&] { require_class_names({"a", bad}); }), {"the name of class 1"});
  }
  check_contains(error_of(Errc::data, [] { require_class_names({"a", "b", "a"}); }), {"class 2", "twice"});
  CHECK(names_that_differ_in_case({"Disk", "pen", "disk"}) == std::pair<std::string, std::string>("Disk", "disk"));
  CHECK_FALSE(names_that_differ_in_case({"Disk", "pen"}));
}

Dataset bytes_of_classes(std::vector<std::int64_t> labels) {
  const std::int64_t count = std::ssize(labels);
  const Tensor images = torch::randint(256, {count, 2, 3, 4}, generator(Seed(1)), at::kInt).to(at::kByte);
  return {.name = "tensors", .images = images, .labels = torch::tensor(labels), .num_classes = 2};
}

TEST_CASE("class folders that a silo has are numbered as the run numbers them") {
  Dataset silo = bytes_of_classes({0, 0, 1});
  silo.classes = {"cat", "eel"};
  silo.class_source = ClassSource::folders;
  const Tensor labels = labels_in(silo, {"ant", "cat", "dog", "eel"});
  CHECK(torch::equal(labels, torch::tensor({1, 1, 3})));
}

TEST_CASE("a label beyond the run's classes is refused by file and index, also in a share of the file") {
  Dataset silo = bytes_of_classes({0, 1, 0, 2});
  silo.class_source = ClassSource::labels;
  silo.labels_file = "/silo/train-labels.npy";
  CHECK(torch::equal(labels_in(silo, {"a", "b", "c"}), silo.labels));
  check_contains(error_of(Errc::data,
                          [&] {
                            labels_in(silo, {"a", "b"});
                          }),
                 {"/silo/train-labels.npy, index 3: label 2, expected 0 to 1"});
  check_contains(error_of(Errc::data, [&] { labels_in(silo.part({1, 3}), {"a", "b"}); }), {"index 3: label 2"});
}

TEST_CASE("samples are normalised by the run's constants, with the bits of the server's own") {
  Dataset own = bytes_of_classes({0, 1, 0});
  own.mean = {0.5, 0.25};
  own.deviation = {0.25, 0.125};
  SampleTerms run = sample_terms(own);
  CHECK(run.classes == std::vector<std::string>{"0", "1"});
  CHECK(run.range == std::vector<double>{0, 1});
  CHECK(torch::equal(model_input(own, run).x, own.all().x));
  CHECK(torch::equal(model_input(own.part({2, 1}), run).x, own.select({2, 1}).x));
  Dataset silo = own;
  silo.mean = {0.1, 0.1};
  silo.deviation = {0.01, 0.01};
  CHECK(torch::equal(model_input(silo, run).x, own.all().x));
  Dataset floats = own;
  floats.images = own.images.to(at::kFloat) / 255;
  CHECK(torch::equal(model_input(floats, run).x, own.all().x));
  run.mean = {0.5};
  check_contains(error_of(Errc::data, [&] { model_input(silo, run); }), {"1 and 2 channels", "have 2"});
}

// ------------------------------------------------------------------------------------------------------- figures

const Task task{.shape = {1, 8, 8}, .num_classes = 3};

/// Values between 0.2 and 0.9, as a photograph's.
Tensor pictures(std::uint64_t seed) { return 0.2 + 0.7 * torch::rand({40, 1, 8, 8}, generator(Seed(seed))); }

Dataset of(const Tensor& images) {
  return {.name = "tensors", .images = images, .labels = torch::zeros({images.size(0)}, at::kLong), .num_classes = 3};
}

Dataset bytes(const Tensor& pictures) { return of((pictures * 255).to(at::kByte)); }

FiguresVerdict verdict(const Dataset& silo, const Dataset& server) {
  return compare(figures_of(silo), sample_terms(server), task, Reference{"the server", figures_of(server)});
}

TEST_CASE("figures of bytes and of floats are exact, and those of parts make the whole's") {
  const Dataset whole = bytes(pictures(1));
  const SampleFigures figures = figures_of(whole);
  const Tensor values = whole.images.to(at::kDouble) / 255;
  CHECK(figures.stored == Stored::uint8);
  CHECK(figures.num_samples == 40);
  CHECK(figures.min == std::vector<double>{values.min().item<double>()});
  CHECK(figures.max == std::vector<double>{values.max().item<double>()});
  CHECK(figures.mean[0] == doctest::Approx(values.mean().item<double>()));
  CHECK(figures.deviation[0] == doctest::Approx(values.std(false).item<double>()));
  const SampleFigures floats = figures_of(of(whole.images.to(at::kFloat) / 255));
  CHECK(floats.mean[0] == doctest::Approx(figures.mean[0]));
  CHECK(floats.deviation[0] == doctest::Approx(figures.deviation[0]));
  const SampleFigures both = pooled({figures_of(whole.part({0, 1, 2})), figures_of(whole.part([] {
                                       std::vector<std::int64_t> rest;
                                       for (std::int64_t i = 3; i < 40; ++i) rest.push_back(i);
                                       return rest;
                                     }()))});
  CHECK(both.mean[0] == doctest::Approx(figures.mean[0]));
  CHECK(both.deviation[0] == doctest::Approx(figures.deviation[0]));
  CHECK(both.max == figures.max);
  CHECK(figures_of(of(torch::rand({2, 40, 1, 1}))).mean.size() == 1);
}

TEST_CASE("values that cannot be the run's are refused with the numbers of both") {
  const Tensor mine = pictures(1);
  const Tensor theirs = pictures(2);
  CHECK(verdict(bytes(mine), bytes(theirs)).refusal.empty());
  CHECK(verdict(of(mine), bytes(theirs)).refusal.empty());
  CHECK(verdict(bytes(mine), of(theirs)).refusal.empty());
  CHECK(verdict(of(mine), bytes(theirs)).warning.empty());
  SUBCASE("0 to 255 beside 0 to 1") {
    check_contains(verdict(of(mine * 255), bytes(theirs)).refusal,
                   {"float32 from", "here", "uint8, divided by 255,", "at the server", "Divide the values by 255"});
    check_contains(verdict(of(mine * 255), of(theirs)).refusal, {"Divide the values by 255"});
  }
  SUBCASE("the reverse") {
    check_contains(verdict(bytes(mine), of(theirs * 255)).refusal, {"uint8, divided by 255,", "here", "or have all"});
    CHECK_FALSE(verdict(of(mine), of(theirs * 255)).refusal.empty());
  }
  SUBCASE("-1 to 1, or standardised, beside 0 to 1") {
    for (const Tensor& other : {mine * 2 - 1, (mine - 0.55) / 0.2}) {
      CHECK_FALSE(verdict(of(other), bytes(theirs)).refusal.empty());
      CHECK_FALSE(verdict(of(other), of(theirs)).refusal.empty());
      CHECK_FALSE(verdict(bytes(mine), of(other)).refusal.empty());
      CHECK_FALSE(verdict(of(theirs), of(other)).refusal.empty());
      CHECK(verdict(of(other), of(other.flip(0))).refusal.empty());
    }
  }
  SUBCASE("divided by 255 twice") { CHECK_FALSE(verdict(of(mine / 255), bytes(theirs)).refusal.empty()); }
}

TEST_CASE("a mean far from the run's is warned of, and what label skew does is not refused") {
  const Tensor mine = pictures(1);
  // A dark background with a light thing on it, and the negative of that.
  Tensor dark = torch::zeros({40, 1, 8, 8});
  dark.narrow(2, 0, 2).fill_(0.9);
  check_contains(verdict(bytes(1 - dark), bytes(dark)).warning, {"far from the run's", "mean 0.7", "mean 0.2"});
  CHECK(verdict(bytes(1 - dark), bytes(dark)).refusal.empty());
  // One class of three: other pixels are light.
  CHECK(verdict(bytes(dark), bytes(dark.flip(2))).warning.empty());
  // Much darker pictures than the run's.
  CHECK(verdict(bytes(0.3 * mine), bytes(mine)).refusal.empty());
  CHECK(verdict(of(0.3 * mine), of(mine)).refusal.empty());
}

TEST_CASE("samples that have no scale, or only one, are not refused for it") {
  const Tensor mine = pictures(1);
  const Tensor blank = torch::zeros_like(mine);
  CHECK(verdict(bytes(blank), bytes(mine)).refusal.empty());
  CHECK(verdict(of(mine), of(blank)).refusal.empty());
  CHECK(verdict(of(mine - 0.5), of(blank)).refusal.empty());
  check_contains(verdict(of(blank), of(mine)).warning, {"far from the run's"});
  CHECK(verdict(bytes(0.05 * mine), bytes(mine)).refusal.empty());
  // A thing on a light ground, scaled to -1..1: few values lie below 0, and they may be of one class.
  Tensor light = torch::ones({40, 1, 8, 8});
  light.narrow(2, 0, 1).narrow(3, 0, 1).fill_(0);
  check_contains(verdict(of(light * 2 - 1), of(light)).warning, {"below 0"});
}

TEST_CASE("a server without data compares with its settings and with the silos that came before") {
  SampleTerms run;
  run.classes = numbered_classes(3);
  const SampleFigures floats = figures_of(of(pictures(1) * 255));
  CHECK(compare(floats, run, task, std::nullopt).refusal.empty());
  const Reference others{"silo-0", figures_of(bytes(pictures(2)))};
  check_contains(compare(floats, run, task, others).refusal, {"at silo-0"});
  run.range = {0, 1};
  check_contains(compare(floats, run, task, std::nullopt).refusal, {"0 to 1 in the run"});
  run.range = {0, 255};
  CHECK(compare(floats, run, task, std::nullopt).refusal.empty());
}

TEST_CASE("a table's columns have figures of their own up to 16, as the first dimension of any sample") {
  const Tensor rows = torch::randn({50, 17}, generator(Seed(4)));
  const SampleFigures of_16 = figures_of(of(rows.narrow(1, 0, 16)));
  CHECK(of_16.mean.size() == 16);
  CHECK(of_16.mean[3] == doctest::Approx(rows.select(1, 3).to(at::kDouble).mean().item<double>()));
  const SampleFigures of_17 = figures_of(of(rows));
  CHECK(of_17.mean.size() == 1);
  CHECK(of_17.mean[0] == doctest::Approx(rows.to(at::kDouble).mean().item<double>()));
  CHECK_NOTHROW(require_whole(of_17));
  CHECK(figures_of(of(torch::randn({5, 2, 3, 4, 6}))).deviation.size() == 2);
  CHECK(figures_of(of(torch::ones({5, 3, 7}, at::kByte))).max.size() == 3);
  SampleTerms run = sample_terms(of(rows));
  run.mean = {0, 1};
  run.deviation = {1, 1};
  check_contains(error_of(Errc::data, [&] { model_input(of(rows), run); }), {"2 and 2 channels", "have 17"});
}

TEST_CASE("a table of one figure a sample may be all positive at a silo by chance") {
  const Task table{.shape = {1}, .num_classes = 2};
  const SampleFigures positive = figures_of(of(torch::tensor({0.5F, 1.F, 2.F}).view({3, 1})));
  const Dataset server = of(torch::tensor({-2.F, 1.F, 2.F}).view({3, 1}));
  CHECK(compare(positive, sample_terms(server), table, Reference{"the server", figures_of(server)}).refusal.empty());
}

}  // namespace

TEST_CASE("inputs from which no model learns are named, whoever else stores the same") {
  const auto figures = [](Stored stored, double min, double max, double mean, double deviation) {
    return SampleFigures{stored, 100, {min}, {max}, {mean}, {deviation}};
  };
  const SampleTerms plain;
  const SampleTerms normalised{.mean = {0.286}, .deviation = {0.353}};
  const SampleTerms of_bytes{.mean = {127}, .deviation = {50}};
  const SampleFigures images = figures(Stored::uint8, 0, 1, 0.29, 0.35);
  CHECK(odd_inputs(images, plain).empty());
  CHECK(odd_inputs(images, normalised).empty());
  CHECK(odd_inputs(figures(Stored::float32, -3, 3, 0, 1), plain).empty());
  // Constants for values of 0 to 255, features of 0 and 1 as bytes, and values that nobody scaled.
  CHECK(odd_inputs(images, of_bytes).find("mean -2.534 and deviation 0.007") != std::string::npos);
  CHECK(odd_inputs(images, of_bytes).find("uint8 is divided by 255 first") != std::string::npos);
  CHECK(odd_inputs(figures(Stored::uint8, 0, 1.0 / 255, 0.002, 0.00196), plain).find("belong into float32") !=
        std::string::npos);
  CHECK(odd_inputs(figures(Stored::float32, 0, 255, 73, 90), plain).find("the run normalises nothing") !=
        std::string::npos);
}

}  // namespace headstart::learn

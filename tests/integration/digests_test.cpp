// The models of some fifty small runs, bit by bit, as tests/golden/digests.json has them: whoever moves code and means
// to change no result sees here whether that holds.

#include <cstdlib>
#include <functional>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "experiments/lab/simulation.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/platform.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

const std::filesystem::path golden = "tests/golden/digests.json";

/// Stops the run when its `count`-th phase begins; 0: never.
class StopAtPhase final : public server::RunObserver {
 public:
  explicit StopAtPhase(int count) : left_(count) {}
  void on_phase(const server::Phase&, std::size_t) override {
    if (--left_ == 0) stop();
  }
  std::function<void()> stop;

 private:
  int left_;
};

learn::ModelSpec spec_of(learn::ModelSpec spec, const nlohmann::json& changes) {
  Fields fields;
  learn::declare_fields(fields, "model", spec);
  fields.load({{"model", changes}}, golden.string());
  return spec;
}

std::vector<lab::SimulatedClient> clients_of(const nlohmann::json& own, const learn::ModelSpec& federated) {
  std::vector<lab::SimulatedClient> clients;
  for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
    client::SiloOptions options{.name = {}, .own_model = {}, .script = {}, .store = {}, .shares_with_peers = true};
    if (const auto key = std::to_string(i); own.contains(key)) options.own_model = spec_of(federated, own.at(key));
    clients.push_back({test::small_name(i), test::small_worker(i, std::move(options)), {}});
  }
  return clients;
}

nlohmann::json run_to_phase(const server::ServerConfig& config, const nlohmann::json& own, int stop_at_phase) {
  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  StopAtPhase observer(stop_at_phase);
  net::ManualTime time;
  return lab::simulate(config, test::small_central_data(), folder, observer, clients_of(own, config.terms.model), 2,
                       time, [&observer](std::function<void()> stop) { observer.stop = std::move(stop); });
}

std::string digest_of_run(const nlohmann::json& run, const std::filesystem::path& folder) {
  server::ServerConfig config = test::small_config(folder);
  Fields fields;
  server::declare_fields(fields, config);
  fields.load(run.at("set"), golden.string());
  server::check(config);
  const nlohmann::json own = run.value("own", nlohmann::json::object());
  if (const int phase = run.value("stop_at_phase", 0); phase > 0) {
    CHECK(test::code_of([&] { run_to_phase(config, own, phase); }) == Errc::interrupted);
  }
  return run_to_phase(config, own, 0).at("model_digest");
}

/// LibTorch's kernels and the BLAS decide on last bits; the number of threads does not, where there is one.
std::string platform_of_digests() {
  const learn::Platform here = learn::platform();
  return fmt::format("libtorch {}, {}, {}", here.libtorch, here.instruction_set, here.blas);
}

TEST_CASE("the models of small runs are those of before, bit by bit") {
  learn::use_threads(1);
  nlohmann::json document = read_json(golden);
  const char* const frozen = std::getenv("HEADSTART_FREEZE_DIGESTS");  // NOLINT(concurrency-mt-unsafe)
  if (frozen == nullptr && document.at("platform") != platform_of_digests()) {
    MESSAGE("skipped: the digests are of ", document.at("platform").get<std::string>(), "; this is ",
            platform_of_digests());
    return;
  }
  const test::TemporaryFolder folder;
  nlohmann::json& cases = document.at("cases");
  REQUIRE(cases.size() >= 40);
  for (auto& [name, run] : cases.items()) {
    CAPTURE(name);
    const std::string found = digest_of_run(run, folder / name);
    if (frozen != nullptr) run["digest"] = found;
    CHECK(found == run.value("digest", ""));
  }
  for (const auto& [name, run] : cases.items()) {
    CAPTURE(name);
    if (run.contains("same_as")) CHECK(run.at("digest") == cases.at(run.at("same_as").get<std::string>()).at("digest"));
  }
  if (frozen == nullptr) return;
  document["platform"] = platform_of_digests();
  write_text_atomically(frozen, document.dump(1) + "\n");
}

}  // namespace
}  // namespace headstart

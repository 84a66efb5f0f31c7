// headstart_fuzz_seeds FOLDER PICTURES: writes what the program itself would write, and the pictures of the tests, as
// first inputs of the fuzz targets: FOLDER/TARGET/NAME. The committed corpus grew from these.
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <torch/types.h>

#include "client/config.hpp"
#include "server/pki/x509.hpp"
#include "server/record/recovery.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "shared/plan/terms.hpp"
#include "shared/wire/codec.hpp"
#include "shared/wire/safetensors.hpp"
#include "shared/worker_process/frame.hpp"

namespace {

using namespace headstart;

std::filesystem::path root;

void write(const std::string& target, const std::string& name, std::string_view content) {
  std::filesystem::create_directories(root / target);
  std::ofstream(root / target / name, std::ios::binary) << content;
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string own_model() {
  learn::ModelSpec spec;
  spec.name = "resnet18";
  spec.norm = learn::Norm::group;
  return plan::to_json_text(spec);
}

plan::Form weights_form() { return {.model = {}, .tensors = {{"weights", c10::ScalarType::Double, {1, 10}}}}; }

std::vector<wire::ClientMessage> client_messages() {
  return {wire::Hello{wire::protocol_version, "silo-1", "headstart 0.1.0"},
          wire::Join{600,
                     60,
                     10,
                     {{1, 28, 28}},
                     std::string(64, 'a'),
                     "cnn channels=32,64 kernel=3 hidden=128 norm=none",
                     own_model(),
                     "resnet18 width=64 norm=group",
                     true},
          wire::ProgressReport{3, 128, 600},
          wire::Fetch{3, {{0, 2}}},
          wire::Result{4, plan::to_json_text(learn::Evaluation{{8, 9}, {10, 10}, {9, 11}, 6.25}), 0},
          wire::Result{5, {}, 24},
          wire::TaskFailed{6, wire::Failure::training},
          wire::Attachment{0, 24}};
}

std::vector<wire::ServerMessage> server_messages() {
  const std::string digest(64, 'c');
  return {wire::Welcome{wire::protocol_version, plan::to_json_text(plan::Terms{}), 0, 30'000},
          wire::Joined{3, 10},
          wire::Refused{"the run is over", false},
          wire::Task{1, "pretrain", {}, 0, false},
          wire::Task{3, "train", plan::to_json_text(plan::TrainSettings{7, 6}), 1, true},
          wire::Task{6, "distill", plan::to_json_text(learn::KdSetting{2.5, 0.25}), 4, true},
          wire::Input{"model", digest, "", {}},
          wire::Input{"teacher", digest, "silo-2", own_model()},
          wire::Input{"weights", digest, "", plan::to_json_text(weights_form())},
          wire::Grant{8},
          wire::ResultRefused{9, "too late"},
          wire::Finished{"all rounds are done", false},
          wire::Attachment{1, 4096}};
}

wire::PeerHello peer_hello() {
  wire::PeerHello hello;
  hello.name = "silo-1";
  hello.software = "headstart 0.1.0";
  hello.rounds_done = 2;
  hello.sections = {{"model", "model schema", "seed"}};
  hello.digests = {{std::string(64, 'a'), std::string(64, 'b'), std::string(64, 'c')}};
  return hello;
}

std::vector<wire::PeerMessage> peer_messages() {
  return {peer_hello(),
          wire::Ready{3, 24, std::string(64, 'd')},
          wire::Ready{4},
          wire::Pull{2},
          wire::Pull{3},
          wire::Gone{1},
          wire::Attachment{0, 24},
          wire::Done{},
          wire::PeerRefused{"its seed differs"}};
}

std::string chunk(std::uint32_t attachment, std::uint64_t offset, std::size_t count) {
  return text_of(wire::encode_chunk_head(attachment, offset)) + std::string(count, 'x');
}

/// As the conversation's target takes frames.
std::string script(const std::vector<std::string>& frames) {
  std::string text;
  for (const std::string& frame : frames) {
    text += static_cast<char>(frame.size() & 255);
    text += static_cast<char>(frame.size() >> 8);
    text += frame;
  }
  return text;
}

void write_frames_of_peers() {
  const auto of = [](const wire::PeerMessage& message) { return text_of(wire::encode(message)); };
  int n = 0;
  std::vector<std::string> all;
  for (const auto& message : peer_messages()) {
    all.push_back(of(message));
    write("frame", fmt::format("peer-{}", n++), all.back());
  }
  wire::PeerHello later = peer_hello();
  later.newest = 3;
  write("frame", "peer-hello-later", of(later) + "and more");

  const std::string ready = of(wire::Ready{3, 24, std::string(64, 'd')});
  const std::string announced = of(wire::Attachment{0, 24});
  write("peer_conversation", "all", script(all));
  write("peer_conversation", "pulled",
        script({ready, announced, chunk(0, 0, 16), chunk(0, 16, 8), of(wire::Ready{4, 24, std::string(64, 'e')}),
                of(wire::Attachment{1, 24}), chunk(1, 0, 24), of(wire::Done{})}));
  write("peer_conversation", "gone",
        script({ready, of(wire::Gone{3}), ready, of(wire::Pull{1}), announced, chunk(0, 0, 24), of(wire::Gone{3})}));
  write("peer_conversation", "interrupted", script({ready, announced, chunk(0, 0, 16), of(wire::Gone{3})}));
  write("peer_conversation", "unasked", script({of(wire::Pull{3}), announced, chunk(0, 0, 24)}));
}

void write_frames() {
  int n = 0;
  std::vector<std::string> all;
  for (const auto& message : client_messages()) {
    all.push_back(text_of(wire::encode(message)));
    write("frame", fmt::format("client-{}", n++), all.back());
  }
  for (const auto& message : server_messages())
    write("frame", fmt::format("server-{}", n++), text_of(wire::encode(message)));
  write("frame", "chunk", chunk(7, 1 << 20, 16));
  write("frame", "hello-old", text_of(wire::encode(wire::Hello{.newest = 5})) + "and more");
  write("frame", "hello-later",
        text_of(wire::encode(wire::Hello{9, "silo-1", "headstart 9", false, 7, {{"train", "later"}}})) + "and more");

  write_frames_of_peers();

  const auto of = [](const wire::ClientMessage& message) { return text_of(wire::encode(message)); };
  write("conversation", "all", script(all));
  write("conversation", "upload",
        script({of(wire::ProgressReport{1, 2, 4}), of(wire::Result{1, {}, 24}), of(wire::Attachment{0, 24}),
                chunk(0, 0, 16), of(wire::ProgressReport{1, 4, 4}), chunk(0, 16, 8), of(wire::Result{2, {}, 24}),
                of(wire::Attachment{1, 24}), chunk(1, 0, 24)}));
  write("conversation", "unasked", script({of(wire::Attachment{0, 24}), chunk(0, 0, 24)}));
}

template <class Config>
void write_settings(const std::string& name) {
  Config config;
  Fields fields;
  declare_fields(fields, config);
  write("config", name + ".json", to_line(fields.resolved()));
  std::string lines;
  for (const Fields::Field& field : fields.all()) lines += fmt::format("{}={}\n", field.key, field.initial.dump());
  write("config", name + ".lines", lines);
}

void write_tasks() {
  write("tasks", "form", plan::to_json_text(weights_form()));
  const plan::Form two{.model = {},
                       .tensors = {{"w", c10::ScalarType::Float, {3, 4}}, {"n", c10::ScalarType::Long, {}}}};
  write("tasks", "forms", plan::to_json_text(two));
  write("tasks", "spec", own_model());
  write("tasks", "train", plan::to_json_text(plan::TrainSettings{7, 6}));
  write("tasks", "distill", plan::to_json_text(learn::KdSetting{2.5, 0.25}));
  write("tasks", "pretraining", plan::to_json_text(plan::Pretraining{true, 1.5, 15, 4}));
  const learn::Evaluation counts{{1, 2, 0}, {3, 2, 1}, {2, 3, 1}, 1.5};
  write("tasks", "evaluation", plan::to_json_text(counts));
  plan::EvaluationFigures scored{.counts = counts, .is_shown = true};
  scored.counts.scores = learn::ScoreCounts{.confusion = {1, 1, 1, 0, 2, 0, 1, 0, 0},
                                            .positives = {1, 2, 0, 2, 1, 0},
                                            .negatives = {2, 1, 3, 1, 4, 1},
                                            .answers = std::vector<std::int64_t>(15),
                                            .right = std::vector<std::int64_t>(15),
                                            .confidence = std::vector<std::int64_t>(15)};
  scored.counts.scores->answers[14] = 6;
  scored.counts.scores->right[14] = 3;
  scored.counts.scores->confidence[14] = 6'200'000'000;
  scored.counts.own = {{"dice", {0.5, 30}}};
  write("tasks", "scored evaluation", plan::to_json_text(scored));
  write("tasks", "evaluate", plan::to_json_text(plan::EvaluateSettings{.counts_scores = true, .by_silo = true}));
  write("tasks", "head sum", plan::to_json_text(plan::HeadSumSettings{.min_samples = 5, .evaluates = true}));
  write("tasks", "head sum figures", plan::to_json_text(plan::HeadSumFigures{.num_samples = 40, .held_out = counts}));
  write("tasks", "keep",
        plan::to_json_text(plan::KeepSettings{.round = 3, .num_rounds = 5, .is_best = true, .took_part = {"a", "b"}}));
  write("tasks", "answers",
        plan::to_json_text(plan::AnswerSettings{.temperature = 3, .bits = 12, .most_examples = 90}));
}

void write_handshake() {
  write("handshake", "terms", plan::to_json_text(plan::Terms{}));
  write("handshake", "later-terms", R"({"required":["run"],"run":{"seed":1},"privacy":{"noise":1}})");
  write("handshake", "unknown-terms", R"({"required":["privacy"],"privacy":{"noise":1}})");
  write("handshake", "own-model", own_model());
  write("handshake", "script", R"({"model":{"name":"script:model.pt"}})");
  write("url", "name", "wss://fl.example.org:9840/run/1");
  write("url", "ipv6", "ws://[::1]:7700");
}

void write_manifest() {
  learn::Manifest manifest;
  manifest.dataset = "fashion-mnist";
  manifest.train_digest = sha256_hex("train");
  manifest.test_digest = sha256_hex("test");
  manifest.num_classes = 3;
  manifest.seed = 7;
  manifest.settings = {{"partition", {{"kind", "label-dirichlet"}, {"label_betas", {0.1, 0.5}}}},
                       {"draw", {{"test", 2}}}};
  manifest.validation = {4};
  manifest.public_large = {5, 9};
  manifest.unused = {11};
  manifest.test = {0, 1};
  manifest.clients = {{0, 2, 3}, {1, 6}};
  manifest.class_counts = {{1, 2, 0}, {0, 1, 1}};
  write("manifest", "two-clients", learn::manifest_text(manifest));
  manifest.num_classes = 21;
  for (auto& row : manifest.class_counts) row.resize(21);
  write("manifest", "many-classes", learn::manifest_text(manifest));
}

void write_tables() {
  write("table", "quotes", "\1age,\"a \"\"b\"\",sex,sick\r\n61,\"1,5\r\n2\",f,no\r\n?, 3 ,m,yes\r\n");
  write("table", "mark", "\4\xef\xbb\xbfx,y\n1e-3,a\n-2,b\n\n+4.5,a");
  write("table", "missing", "\3kind,x,y\nred,NA,1\n,nan,10\nblue,7,2\n");
  write("table", "short", std::string("\4a,b\n1\n"));
}

void write_model_files() {
  const auto as_file = [](const std::string& name, const learn::StateDict& state, const wire::Metadata& metadata) {
    const wire::PackedState model(state);
    write("model_file", name, wire::safetensors_head(model, metadata) + text_of(std::as_const(model).bytes()));
  };
  as_file("every-type",
          learn::StateDict({{"a", torch::ones({2}, at::kDouble)},
                            {"fc.weight", torch::ones({2, 3})},
                            {"half", torch::ones({3}, at::kHalf)},
                            {"brain", torch::ones({1}, at::kBFloat16)},
                            {"bn.num_batches_tracked", torch::tensor(3, torch::kLong)},
                            {"i", torch::ones({1}, at::kInt)},
                            {"s", torch::ones({1}, at::kShort)},
                            {"c", torch::ones({1}, at::kChar)},
                            {"u", torch::ones({1}, at::kByte)},
                            {"mask", torch::tensor({true, false})},
                            {"empty", torch::empty({0, 4})}}),
          {{"round", "12"}, {"architecture", "cnn"}});
  as_file("one", learn::StateDict({{"w", torch::ones({1})}}), {});
  as_file("none", learn::StateDict(), {});
}

void write_worker_frames() {
  const auto frame = [](const std::string& name, const nlohmann::json& header, const std::string& body = "") {
    write("worker_frame", name, worker_process::frame_prefix(header, body.size()) + body);
  };
  frame("hello", {{"type", "hello"}, {"protocol", 1}, {"software", "x"}, {"tasks", {"train", "evaluate"}}});
  frame("joined", {{"type", "joined"},
                   {"examples", 600},
                   {"held_out", 60},
                   {"model",
                    {{{"name", "fc.weight"}, {"dtype", "F32"}, {"shape", {2, 3}}, {"trained", true}},
                     {{"name", "steps"}, {"dtype", "I64"}, {"shape", nlohmann::json::array()}, {"trained", false}}}},
                   {"remarks", {"no samples of class 3"}}});
  frame("progress", {{"type", "progress"}, {"id", 7}, {"done", 1200}, {"total", 6000}});
  frame("failed", {{"type", "failed"}, {"id", 7}, {"reason", "no such file"}, {"cause", "data"}});
  const wire::PackedState model(
      learn::StateDict({{"fc.weight", torch::ones({2, 3})}, {"steps", torch::tensor(3, torch::kLong)}}));
  frame("result", {{"type", "result"}, {"id", 7}, {"figures", {{"epochs", 3}}}},
        wire::safetensors_head(model) + text_of(std::as_const(model).bytes()));
}

void write_journal() {
  using server::Recovery;
  server::ClientInfo client{"silo-1", 600, 60, plan::spec_from_json_text(own_model()), "resnet18 width=64", true};
  const server::StartRecord start{"kd", nlohmann::json::object(), {.bytes_up = 10, .bytes_down = 20}};
  const auto measured = [](int round) {
    server::RoundRecord record;
    record.round = round;
    record.seconds = 2.5;
    record.bytes_up = 30;
    record.bytes_down = 40;
    record.central = server::Measurement{0.5, 1.5, {0.5, 0.5}, 20};
    return server::json_of(record);
  };
  const auto model = [](std::int64_t round) {
    return server::json_of(server::Milestone{.round = round,
                                             .digest = std::string(64, 'd'),
                                             .participation = {{"silo-1"}, {{"silo-2", "late"}}},
                                             .bytes_up = 100,
                                             .bytes_down = 200,
                                             .seconds = 3.5,
                                             .state = {}});
  };
  server::LocalModelRecord local_model;
  local_model.num_examples = 600;
  local_model.architecture = "resnet18 width=64";
  local_model.num_bytes = 1000;
  local_model.digest = std::string(64, 'a');
  local_model.rating = learn::Evaluation{{8, 9}, {10, 10}, {9, 11}, 6.25};
  const std::vector<nlohmann::json> events = {
      server::json_of(server::RosterEvent{{client}}),
      server::json_of(server::NewcomerEvent{{"silo-2", 10, 0, {}, "", false}}),
      server::json_of(server::LeftOut{{server::PhaseKind::rating}, "silo-2", "lost"}),
      server::json_of(server::TrialRecord{
          std::string(64, 'e'), {1.5, 0.25}, {0.75, 0.5}, std::string(64, 'c'), {{"kept_epoch", 3}}}),
      server::json_of(server::DistilledRecord{std::string(64, 'a'), std::string(64, 'b'), {{"place", "silo-1"}}}),
      server::json_of(server::LocalModelEvent{"silo-1", local_model}),
      server::json_of(server::LeftOut{server::phase_from("pretraining"), "silo-2", "lost"}),
      server::json_of(start),
      model(0),
      measured(0),
      model(1),
      measured(1),
      server::json_of(server::BestEvent{1, 0.5}),
      server::json_of(server::LeftOut{{server::PhaseKind::training, 2}, "silo-2", "lost"}),
      model(2),
      measured(2),
      server::json_of(server::ResumedEvent{}),
      server::json_of(start),
      model(0),
      server::json_of(server::OverEvent{})};
  std::string journal;
  std::string lines;
  for (const nlohmann::json& event : events) {
    const std::string text = to_line(event);
    journal += sha256_hex(text) + " " + text + "\n";
    lines += text + "\n";
  }
  write("journal", "whole", journal);
  write("journal", "cut", journal.substr(0, journal.size() - 30));
  write("journal", "short", sha256_hex("{}") + " {}\n" + sha256_hex("[]") + " []\n");
  write("recovery", "whole", lines);
  for (std::size_t i = 0; i < events.size(); ++i) write("recovery", fmt::format("event-{}", i), to_line(events[i]));
}

void write_data() {
  const auto as = [](char file, const std::string& name, const std::string& content) {
    write("data", name, file + content);
  };
  const auto npy = [](const std::string& type, const std::string& shape, const std::string& content) {
    const std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n", type, shape);
    return "\x93NUMPY\1" + std::string(1, '\0') + static_cast<char>(header.size()) + std::string(1, '\0') + header +
           content;
  };
  as(0, "idx-images", std::string("\0\0\x08\x03\0\0\0\1\0\0\0\2\0\0\0\2abcd", 20));
  as(1, "idx-labels", std::string("\0\0\x08\x01\0\0\0\1\x09", 9));
  as(2, "npy-bytes", npy("|u1", "(1, 3, 1, 2)", "abcdef"));
  as(2, "npy-floats", npy("<f4", "(1, 1, 1)", std::string("\0\0\x80\x3f", 4)));
  int n = 0;
  for (const auto& [type, bytes] : {std::pair("|u1", 1), {"<u2", 2}, {"<i4", 4}, {"<i8", 8}}) {
    as(3, fmt::format("npy-labels-{}", n++),
       npy(type, "(1,)", '\2' + std::string(static_cast<std::size_t>(bytes) - 1, '\0')));
  }
  as(4, "meta", R"({"num_classes": 3, "mean": [0.5], "deviation": [0.25]})");
  as(5, "cifar", '\3' + std::string(3072, 'p'));
}

/// `pictures`: made by tests/golden/images_reference.py.
void write_images(const std::filesystem::path& pictures) {
  for (const auto& entry : std::filesystem::directory_iterator(pictures)) {
    if (entry.path().extension() == ".json") continue;
    for (const char channels : {'\0', '\1'}) {
      write("images", fmt::format("{}-{}", int{channels}, entry.path().filename().string()),
            channels + read_text(entry.path()));
    }
  }
  write("images", "list", "\2/a/abbey/x.jpg\n\r\n/z/zoo/y.jpg\r\n");
}

void write_requests() {
  const pki::Key key = pki::make_key();
  write("request", "silo", pki::to_pem(*pki::make_request("silo-1", *key)));
  write("request", "key", pki::to_pem(*key));
}

void write_uploads() {
  const learn::StateDict state({{"f64", torch::tensor({0.5, -1.5}, at::kDouble)},
                                {"f32", torch::ones({2, 2})},
                                {"f16", torch::ones({3}, at::kHalf)},
                                {"bf16", torch::ones({3}, at::kBFloat16)},
                                {"i64", torch::tensor(3, at::kLong)},
                                {"i32", torch::ones({1}, at::kInt)},
                                {"i16", torch::ones({2}, at::kShort)},
                                {"i8", torch::ones({2}, at::kChar)},
                                {"u8", torch::ones({2}, at::kByte)},
                                {"bool", torch::tensor({true, false, true})}});
  const std::string one = text_of(wire::PackedState(state).bytes());
  write("upload", "one", one);
  write("upload", "three", one + one + one);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return EXIT_FAILURE;
  root = argv[1];
  write_frames();
  write_settings<server::ServerConfig>("server");
  write_settings<client::ClientConfig>("client");
  write_handshake();
  write_tasks();
  write_manifest();
  write_tables();
  write_model_files();
  write_worker_frames();
  write_journal();
  write_data();
  write_images(argv[2]);
  write_requests();
  write_uploads();
}

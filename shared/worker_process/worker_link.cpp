#include "shared/worker_process/worker_link.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/version.hpp"
#include "shared/wire/prefixed_states.hpp"

namespace headstart::worker_process {

namespace {

constexpr std::chrono::milliseconds stop_limit(10'000);
constexpr std::chrono::milliseconds end_limit(2'000);
constexpr std::size_t max_reason_bytes = 1000;

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(std::llround(1000 * seconds));
}

/// What the worker says of a task that it could not do. Thrown by cause; none of them ends the process.
[[noreturn]] void throw_failure(const nlohmann::json& header, const std::string& what) {
  const std::string cause = header.contains("cause") ? text_in(header, "cause") : "internal";
  const std::string words =
      fmt::format("the worker failed at {}: {}", what, printable(text_in(header, "reason"), max_reason_bytes));
  if (cause == "data") throw Error(Errc::data, words);
  if (cause == "storage") throw Error(Errc::storage, words);
  if (cause == "settings") throw Error(Errc::usage, words);
  if (cause == "training") throw Error(Errc::run_failed, words);
  if (cause == "memory") {
    spdlog::error("{}", words);
    throw std::bad_alloc();
  }
  throw Error(Errc::internal, words);
}

std::string prefix_of(std::size_t place) { return fmt::format("{}/", place); }

}  // namespace

WorkerLink::WorkerLink(WorkerCommand command, std::string needed_kind)
    : command_(std::move(command)), needed_kind_(std::move(needed_kind)) {
  try {
    start();
  } catch (const Error& error) {
    const std::string words = post_mortem(error.what());
    throw Error(Errc::usage, fmt::format("worker.command '{}': {}", printable(command_.command, 200), words));
  }
}

WorkerLink::~WorkerLink() {
  if (!process_) return;
  try {
    send({{"type", "bye"}});
  } catch (const Error&) {  // it has ended already
  }
  process_->end(end_limit);
}

void WorkerLink::start() {
  stream_.reset();
  buffer_.reset();
  process_.reset();
  has_terms_ = false;
  process_ = std::make_unique<ChildProcess>(command_.command);
  buffer_ = std::make_unique<ProcessBuffer>(*process_, milliseconds(command_.silence_limit));
  stream_ = std::make_unique<std::istream>(buffer_.get());
  stream_->exceptions(std::ios::badbit);  // what the buffer throws is not to be swallowed
  greet();
}

void WorkerLink::greet() {
  const FrameHead hello = next(milliseconds(command_.start_limit));
  if (hello.type() != "hello") {
    throw Error(Errc::protocol, fmt::format("its first frame is a '{}', no hello", printable(hello.type(), 32)));
  }
  const std::int64_t protocol = integer_in(hello.header, "protocol", 0);
  if (protocol != worker_protocol) {
    throw Error(Errc::protocol,
                fmt::format("it speaks version {} of the protocol of workers; this client (headstart {}) "
                            "speaks version {}: install a worker package of the same release",
                            protocol, version(), worker_protocol));
  }
  kinds_ = texts_in(hello.header, "tasks");
  if (std::ranges::find(kinds_, needed_kind_) == kinds_.end()) {
    throw Error(Errc::protocol, fmt::format("it cannot do the task '{}', which every run asks for", needed_kind_));
  }
  software_ = hello.header.contains("software") ? printable(text_in(hello.header, "software"), 64) : "";
}

void WorkerLink::tell_terms() {
  send(terms_);
  const FrameHead head = next(milliseconds(command_.start_limit));
  if (head.type() == "failed") {
    stream_->ignore(static_cast<std::streamsize>(head.num_body_bytes));
    throw_failure(head.header, "taking up the run's terms");
  }
  if (head.type() != "joined") {
    throw Error(Errc::protocol, fmt::format("it answered join with '{}'", printable(head.type(), 32)));
  }
  read_joined_(*stream_, head);
  joined_ = head.header;
  has_terms_ = true;
}

void WorkerLink::send(const nlohmann::json& header, const std::vector<WorkerRequest::Part>& inputs) {
  std::vector<wire::PrefixedState> states;
  for (const auto& input : inputs) states.push_back({prefix_of(states.size()), input.state});
  const std::string head = states.empty() ? "" : wire::safetensors_head(states);
  std::uint64_t num_body_bytes = head.size();
  for (const auto& input : inputs) num_body_bytes += input.state->bytes().size();
  const std::string prefix = frame_prefix(header, num_body_bytes);
  std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(prefix)), std::as_bytes(std::span(head))};
  for (const auto& input : inputs) parts.push_back(input.state->bytes());
  process_->send(parts, milliseconds(command_.silence_limit));
}

FrameHead WorkerLink::next(std::chrono::milliseconds patience, const std::stop_token& stop) {
  if (buffer_->in_avail() <= 0 && !process_->wait_readable(patience, stop)) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "the task's result is not wanted any more");
    throw ProcessSilent(fmt::format("it reported nothing for {:g} s (worker.start, worker.silence)",
                                    static_cast<double>(patience.count()) / 1e3));
  }
  stream_->clear();
  if (stream_->peek() == std::istream::traits_type::eof()) throw ProcessSilent("it closed its socket");
  return read_frame_head(*stream_);
}

template <class Attempt>
auto WorkerLink::with_restarts(Attempt attempt) {
  for (;;) {
    std::string reason;
    try {
      if (!process_) start();
      auto result = attempt();
      num_failures_ = 0;
      return result;
    } catch (const ProcessSilent& silent) {
      reason = silent.what();
    } catch (const Error& error) {
      if (error.code() != Errc::protocol) throw;
      reason = fmt::format("it broke the protocol of workers: {}", error.what());
    }
    const std::string words = post_mortem(reason);
    if (++num_failures_ > command_.max_restarts) {
      num_failures_ = 0;
      throw WorkerFailed(
          fmt::format("{}; it was started again {} times (worker.restarts). Try the command by hand, or "
                      "see the lines that begin with 'worker:' above",
                      words, command_.max_restarts));
    }
    spdlog::warn("{}; it is started again ({} of {})", words, num_failures_, command_.max_restarts);
  }
}

std::string WorkerLink::post_mortem(const std::string& reason) {
  std::string words = fmt::format("the worker failed: {}", reason);
  if (!process_) return words;
  words += fmt::format(" ({})", process_->end(end_limit));
  const std::vector<std::string> lines = process_->last_lines();
  if (!lines.empty()) words += fmt::format("; it printed last: {}", quotation(lines.back()));
  stream_.reset();
  buffer_.reset();
  process_.reset();
  return words;
}

nlohmann::json WorkerLink::join(nlohmann::json header, const Reader& read) {
  terms_ = std::move(header);
  read_joined_ = read;
  return with_restarts([this] {
    tell_terms();
    return joined_;
  });
}

nlohmann::json WorkerLink::ask(const WorkerRequest& request, const Reader& read,
                               const learn::ProgressCallback& progress, const std::stop_token& stop) {
  return with_restarts([&] {
    if (!has_terms_) tell_terms();
    return attempt(request, read, progress, stop);
  });
}

nlohmann::json WorkerLink::attempt(const WorkerRequest& request, const Reader& read,
                                   const learn::ProgressCallback& progress, const std::stop_token& stop) {
  const std::int64_t task = ++last_task_;
  nlohmann::json inputs = nlohmann::json::array();
  for (std::size_t place = 0; place < request.inputs.size(); ++place) {
    const auto& input = request.inputs[place];
    inputs.push_back({{"name", input.name}, {"owner", input.owner}, {"prefix", prefix_of(place)}});
  }
  send({{"type", "task"}, {"id", task}, {"kind", request.kind}, {"settings", request.settings}, {"inputs", inputs}},
       request.inputs);
  for (;;) {
    FrameHead head;
    try {
      head = next(milliseconds(command_.silence_limit), stop);
    } catch (const Error& error) {
      if (error.code() == Errc::interrupted) abandon(task);
      throw;
    }
    if (integer_in(head.header, "id", 0) != task) throw Error(Errc::protocol, "it answers a task that is over");
    if (head.type() == "progress") {
      if (progress) progress({integer_in(head.header, "done", 0), integer_in(head.header, "total", 0)});
      continue;
    }
    if (head.type() == "failed") {
      stream_->ignore(static_cast<std::streamsize>(head.num_body_bytes));
      throw_failure(head.header, fmt::format("the task '{}'", request.kind));
    }
    if (head.type() != "result") {
      throw Error(Errc::protocol, fmt::format("a '{}' while a task is under way", printable(head.type(), 32)));
    }
    if (!head.header.contains("figures")) head.header["figures"] = nlohmann::json::object();
    if (!head.header["figures"].is_object()) throw Error(Errc::protocol, "'figures' in a 'result' is no object");
    read(*stream_, head);
    return head.header["figures"];
  }
}

void WorkerLink::abandon(std::int64_t task) {
  try {
    send({{"type", "stop"}, {"id", task}});
    // A worker that reports once a second has as many reports as seconds to leave.
    for (int reports = 0; reports <= stop_limit.count() / 1000; ++reports) {
      const FrameHead head = next(stop_limit);
      stream_->ignore(static_cast<std::streamsize>(head.num_body_bytes));
      if (head.type() != "progress") return;
    }
    throw ProcessSilent("it goes on with a task that is not wanted any more");
  } catch (const Error&) {
    spdlog::warn("the worker did not leave a task that is not wanted any more within {} s; it is started again",
                 stop_limit.count() / 1000);
    post_mortem("");
  }
}

}  // namespace headstart::worker_process

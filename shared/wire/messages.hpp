// What server and client say to each other. Tensors never stand in a message: they follow as attachments.
//
//   client                                server
//   Hello ------------------------------>
//                 <---------------------- Welcome (terms of the run) | Refused
//   Join ------------------------------->
//                 <---------------------- Joined | Refused
//                 <---------------------- a task, its attachments behind it
//   ProgressReport* -------------------->
//   PretrainDone | EvaluationReport | Offer | TaskFailed
//                 <---------------------- Grant (to an Offer)
//   Attachment, chunks ----------------->
//                 <---------------------- ... more tasks ..., Finished
//
// One task at a time per client. A client whose connection was lost says Hello and Join again under its name and is
// given the task again that was under way. An attachment is announced (id counted from 0 in each direction, byte
// length) and then travels in chunks; its schema is known to both sides and is not sent.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "shared/learn/models/model.hpp"
#include "shared/wire/bounded.hpp"

namespace headstart::wire {

/// Raised with every change of a message. The sides speak the newest version that both know; which those are, a client
/// says in Hello.
inline constexpr std::uint16_t protocol_version = 6;

struct Versions {
  std::uint16_t oldest = protocol_version, newest = protocol_version;
  [[nodiscard]] constexpr bool contains(std::uint16_t version) const { return oldest <= version && version <= newest; }
};
/// What this program speaks.
inline constexpr Versions spoken_versions{6, protocol_version};

inline std::string words_of(Versions versions) {
  const std::string newest = std::to_string(versions.newest);
  if (versions.oldest == versions.newest) return "version " + newest;
  return "versions " + std::to_string(versions.oldest) + " to " + newest;
}

/// The newest version of both ranges; nothing where they have none in common.
constexpr std::optional<std::uint16_t> common_version(Versions a, Versions b) {
  const std::uint16_t newest = std::min(a.newest, b.newest);
  if (!a.contains(newest) || !b.contains(newest)) return std::nullopt;
  return newest;
}

using TaskId = std::uint64_t;
inline constexpr std::size_t max_reason_bytes = 512;
using Reason = Text<max_reason_bytes>;
using Digest = Text<64>;
/// ModelSpec::architecture().
using Architecture = Text<256>;
/// A JSON object of settings, read through declared fields.
using Settings = JsonText<48 * 1024>;
/// The same of figures of samples: learn::Reference.
using Figures = JsonText<4096>;
inline constexpr auto max_classes = static_cast<std::size_t>(learn::max_classes);

/// What a client can be asked to do; the value is the id of the message that asks for it.
enum class TaskKind : std::uint8_t {
  pretrain = 3,
  exchange = 4,
  train = 5,
  evaluate = 6,
  logits = 7,
  distill = 8,
  statistics = 10,
};
inline constexpr std::pair<TaskKind, std::string_view> task_words[] = {
    {TaskKind::pretrain, "pretrain"},    {TaskKind::exchange, "exchange"}, {TaskKind::train, "train"},
    {TaskKind::evaluate, "evaluate"},    {TaskKind::logits, "logits"},     {TaskKind::distill, "distill"},
    {TaskKind::statistics, "statistics"}};

/// Ids, of which the reader may not know all.
using TaskIds = List<std::uint8_t, 64>;
/// Of the tasks that this program knows.
inline TaskIds known_tasks() {
  TaskIds ids;
  for (const auto& [kind, word] : task_words) ids.values.push_back(static_cast<std::uint8_t>(kind));
  return ids;
}

// ---- client to server

/// First message of a connection, and the one that a peer of any version must be able to read: what stands here keeps
/// its place in all later versions, which append. Of a version before 6 nothing is read but its number.
struct Hello {
  std::uint16_t newest = protocol_version;
  Text<64> name;
  Text<64> software;
  Flag is_check = {};  ///< Ends the conversation after Welcome, and leaves the client of that name where it is.
  std::uint16_t oldest = spoken_versions.oldest;
  TaskIds tasks = known_tasks();  ///< That the client can do.

  static constexpr std::uint16_t first_with_range = 6;
  [[nodiscard]] Versions versions() const { return {newest < first_with_range ? newest : oldest, newest}; }
  template <class A>
  void serialize(A& a) {
    a(newest);
    if (newest >= first_with_range) a(name, software, is_check, oldest, tasks);
  }
};

/// What the client brings; what it announces here binds for the run.
struct Join {
  std::uint64_t num_examples = 0;  ///< n_i: training samples after the client's own held-out part.
  std::uint64_t num_held_out = 0;
  std::uint32_t num_classes = 0;
  std::uint32_t channels = 0, height = 0, width = 0;
  Digest schema;              ///< Of the federated model, as the client built it.
  Architecture architecture;  ///< Of the federated model.
  Settings own_model;         ///< Spec of the model it pre-trains, if not the federated one; else empty.
  Architecture own_architecture;
  Flag shares_with_peers;  ///< Consents that its pre-trained model goes to other clients as a teacher.
  Digest held_model;       ///< Global model that it still holds from an earlier connection; empty: none.
  Settings samples = {};   ///< plan::SampleReport; empty: it says nothing of its classes and values.
  template <class A>
  void serialize(A& a) {
    a(num_examples, num_held_out, num_classes, channels, height, width, schema, architecture, own_model,
      own_architecture, shares_with_peers, held_model, samples);
  }
};

/// Where a long task stands, in samples. Sent at most a few times a second.
struct ProgressReport {
  TaskId task = 0;
  std::uint64_t done = 0, total = 0;
  template <class A>
  void serialize(A& a) {
    a(task, done, total);
  }
};

/// Pre-training is done; the model stays with the client until it is asked for.
struct PretrainDone {
  TaskId task = 0;
  Flag is_reused;      ///< Taken from the client's store of pre-trained models.
  double seconds = 0;  ///< From receiving the task to the model being ready, as first trained.
  std::uint32_t num_epochs = 0, best_epoch = 0;
  template <class A>
  void serialize(A& a) {
    a(task, is_reused, seconds, num_epochs, best_epoch);
  }
};

struct EvaluationReport {
  TaskId task = 0;
  List<std::uint64_t, max_classes> correct, total, predicted;  ///< Per class.
  double loss_sum = 0;
  template <class A>
  void serialize(A& a) {
    a(task, correct, total, predicted, loss_sum);
  }
};

/// The task's result is ready: so many bytes, sent when the server grants it.
struct Offer {
  TaskId task = 0;
  std::uint64_t num_bytes = 0;
  template <class A>
  void serialize(A& a) {
    a(task, num_bytes);
  }
};

/// What kept a client from doing a task. More than that does not leave a silo: what exactly happened, which may hold
/// paths and contents of its files, stands in its own log.
enum class Failure : std::uint8_t {
  internal,  ///< None of the others: a bug, or more than a library could bear.
  data,      ///< Its data or the file of its model.
  settings,  ///< Its settings and what the task asks for.
  storage,   ///< Its disk.
  memory,
  training,  ///< What it computes: it diverged, or the data do not suffice for it.
};
inline constexpr Failure last_failure = Failure::training;

/// A word that names it, and a sentence.
constexpr std::string_view word_of(Failure failure) {
  switch (failure) {
    case Failure::internal:
      return "internal";
    case Failure::data:
      return "data";
    case Failure::settings:
      return "settings";
    case Failure::storage:
      return "storage";
    case Failure::memory:
      return "memory";
    case Failure::training:
      return "training";
  }
  return "internal";
}
constexpr std::string_view sentence_of(Failure failure) {
  switch (failure) {
    case Failure::internal:
      return "an error inside its program";
    case Failure::data:
      return "its data or its model's file cannot be used";
    case Failure::settings:
      return "its settings do not allow what the task asks for";
    case Failure::storage:
      return "its disk is full or cannot be written";
    case Failure::memory:
      return "its memory does not suffice";
    case Failure::training:
      return "its training or distillation diverged, or its data do not suffice for it";
  }
  return "an error inside its program";
}

/// The client could not do the task and stays in the run.
struct TaskFailed {
  TaskId task = 0;
  Failure failure = Failure::internal;
  template <class A>
  void serialize(A& a) {
    a(task, failure);
  }
};

/// Raw tensor bytes follow in chunks, in either direction.
struct Attachment {
  std::uint32_t id = 0;
  std::uint64_t num_bytes = 0;
  template <class A>
  void serialize(A& a) {
    a(id, num_bytes);
  }
};

// ---- server to client

struct Welcome {
  std::uint16_t protocol = protocol_version;  ///< The version that both sides speak from here on.
  Settings terms;                             ///< plan::Terms.
  std::int64_t unix_time = 0;                 ///< The server's time of day, in milliseconds since 1970.
  std::uint32_t silence = 0;                  ///< For how many milliseconds either side may be silent; at least 1.
  Figures reference = {};  ///< learn::Reference: what the client's samples are compared with; empty: nothing yet.
  template <class A>
  void serialize(A& a) {
    a(protocol, terms, unix_time, silence, reference);
  }
};

struct Joined {
  std::uint32_t num_present = 0, num_expected = 0;
  Reason warning = {};  ///< What is odd about the client's samples; empty: nothing.
  template <class A>
  void serialize(A& a) {
    a(num_present, num_expected, warning);
  }
};

/// The server refuses the client and closes.
struct Refused {
  Reason reason;
  Flag is_for_now;  ///< The same client may be admitted a little later.
  template <class A>
  void serialize(A& a) {
    a(reason, is_for_now);
  }
};

/// Pre-train the client's own model on its own data.
struct PretrainTask {
  TaskId task = 0;
  template <class A>
  void serialize(A& a) {
    a(task);
  }
};

/// Send the pre-trained model (own schema).
struct ExchangeTask {
  TaskId task = 0;
  template <class A>
  void serialize(A& a) {
    a(task);
  }
};

/// One round of local training from the global model of this digest, which the client holds or which follows as the one
/// attachment.
struct TrainTask {
  TaskId task = 0;
  std::uint32_t round = 0;
  Digest model;
  Flag model_follows;
  template <class A>
  void serialize(A& a) {
    a(task, round, model, model_follows);
  }
};

/// Count right and total per class on the client's held-out data. The global model (as in TrainTask), or, where
/// `candidate` is not empty, a model of that spec that follows and is not kept.
struct EvaluateTask {
  TaskId task = 0;
  Digest model;
  Flag model_follows;
  Settings candidate;
  template <class A>
  void serialize(A& a) {
    a(task, model, model_follows, candidate);
  }
};

/// Return the logits of the client's pre-trained model on `num_samples` samples that follow.
struct LogitsTask {
  TaskId task = 0;
  std::uint64_t num_samples = 0;
  template <class A>
  void serialize(A& a) {
    a(task, num_samples);
  }
};

/// Consolidate on the client's own data: distil `num_teachers` models into a student. Attachments: the student's start
/// (federated schema), the teacher weights (float64 [num_teachers, num_classes]), then teacher by teacher, each behind
/// a TeacherFollows. Without teachers: no attachments, those of the DistillTask before on this connection count.
/// Result: the student.
struct DistillTask {
  TaskId task = 0;
  std::uint32_t num_teachers = 0;
  double temperature = 1;
  double alpha = 0;  ///< Weight of the distillation term, 0..1.
  template <class A>
  void serialize(A& a) {
    a(task, num_teachers, temperature, alpha);
  }
};

/// Spec and origin of the teacher whose state is the next attachment.
struct TeacherFollows {
  Text<64> client;
  Settings spec;
  template <class A>
  void serialize(A& a) {
    a(client, spec);
  }
};

/// Re-estimate BatchNorm statistics of the model that follows, on the client's own data; returns the model.
struct StatisticsTask {
  TaskId task = 0;
  template <class A>
  void serialize(A& a) {
    a(task);
  }
};

/// The offered result may be sent now.
struct Grant {
  TaskId task = 0;
  template <class A>
  void serialize(A& a) {
    a(task);
  }
};

/// A task's result is not accepted: it was checked and refused, or its time is over, and the client need not go on with
/// it. The client stays in the run.
struct ResultRefused {
  TaskId task = 0;
  Reason reason;
  template <class A>
  void serialize(A& a) {
    a(task, reason);
  }
};

/// The run is over.
struct Finished {
  Reason summary;
  Flag is_failure;  ///< It ended before what was planned was done.
  template <class A>
  void serialize(A& a) {
    a(summary, is_failure);
  }
};

/// For those who run the client; it asks for nothing, and may come at any time once the client has joined.
struct Notice {
  Reason words;
  template <class A>
  void serialize(A& a) {
    a(words);
  }
};

// ---- ids

/// A message and the id that stands for it on the wire: never changed, and never given to another message of that side.
template <class M, auto Id>
struct Row {
  using Message = M;
  static constexpr auto id = static_cast<std::uint8_t>(Id);
};

/// What one side may say. The order of the rows means nothing.
template <class... Rows>
struct Table {
  using Message = std::variant<typename Rows::Message...>;
  /// By place in the variant.
  static constexpr std::array<std::uint8_t, sizeof...(Rows)> ids{Rows::id...};

  static constexpr bool has_distinct_ids() {
    return std::ranges::all_of(ids, [](std::uint8_t id) { return std::ranges::count(ids, id) == 1; });
  }
};

struct ClientTable : Table<Row<Hello, 0>,             //
                           Row<Join, 1>,              //
                           Row<ProgressReport, 2>,    //
                           Row<PretrainDone, 3>,      //
                           Row<EvaluationReport, 4>,  //
                           Row<Offer, 5>,             //
                           Row<TaskFailed, 6>,        //
                           Row<Attachment, 7>> {
  static constexpr std::string_view side = "client";
};
struct ServerTable : Table<Row<Welcome, 0>,                            //
                           Row<Joined, 1>,                             //
                           Row<Refused, 2>,                            //
                           Row<PretrainTask, TaskKind::pretrain>,      //
                           Row<ExchangeTask, TaskKind::exchange>,      //
                           Row<TrainTask, TaskKind::train>,            //
                           Row<EvaluateTask, TaskKind::evaluate>,      //
                           Row<LogitsTask, TaskKind::logits>,          //
                           Row<DistillTask, TaskKind::distill>,        //
                           Row<TeacherFollows, 9>,                     //
                           Row<StatisticsTask, TaskKind::statistics>,  //
                           Row<Grant, 11>,                             //
                           Row<ResultRefused, 12>,                     //
                           Row<Finished, 13>,                          //
                           Row<Attachment, 14>,                        //
                           Row<Notice, 15>> {
  static constexpr std::string_view side = "server";
};
static_assert(ClientTable::has_distinct_ids() && ServerTable::has_distinct_ids());

using ClientMessage = ClientTable::Message;
using ServerMessage = ServerTable::Message;

}  // namespace headstart::wire

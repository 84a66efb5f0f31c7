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

#include <cstdint>
#include <string_view>
#include <variant>

#include "shared/learn/models/model.hpp"
#include "shared/wire/bounded.hpp"

namespace headstart::wire {

/// Raised with every change of a message; the server refuses other versions by name.
inline constexpr std::uint16_t protocol_version = 5;

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

// ---- client to server

/// First message of a connection.
struct Hello {
  std::uint16_t protocol = protocol_version;
  Text<64> name;
  Text<64> software;
  Flag is_check = {};  ///< Ends the conversation after Welcome, and leaves the client of that name where it is.
  template <class A>
  void serialize(A& a) {
    a(protocol, name, software, is_check);
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
  Settings terms;              ///< plan::Terms.
  std::int64_t unix_time = 0;  ///< The server's time of day, in milliseconds since 1970.
  std::uint32_t silence = 0;   ///< For how many milliseconds either side may be silent; at least 1.
  Figures reference = {};      ///< learn::Reference: what the client's samples are compared with; empty: nothing yet.
  template <class A>
  void serialize(A& a) {
    a(terms, unix_time, silence, reference);
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

using ClientMessage =
    std::variant<Hello, Join, ProgressReport, PretrainDone, EvaluationReport, Offer, TaskFailed, Attachment>;
using ServerMessage =
    std::variant<Welcome, Joined, Refused, PretrainTask, ExchangeTask, TrainTask, EvaluateTask, LogitsTask, DistillTask,
                 TeacherFollows, StatisticsTask, Grant, ResultRefused, Finished, Attachment, Notice>;

}  // namespace headstart::wire

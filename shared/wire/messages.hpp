// What server and client say to each other. Tensors never stand in a message: they follow as attachments.
//
//   client                                server
//   Hello ------------------------------>
//                 <---------------------- Welcome (terms of the run) | Refused
//   Join ------------------------------->
//                 <---------------------- Joined | Refused
//                 <---------------------- Task, an Input for each state that it works on
//   Fetch (what it does not hold) ------>
//                 <---------------------- those states, as attachments
//   ProgressReport* -------------------->
//   Result | TaskFailed ---------------->
//                 <---------------------- Grant (of a result with a state)
//   Attachment, chunks ----------------->
//                 <---------------------- ... more tasks ..., Finished
//
// One task at a time per client. A client whose connection was lost says Hello and Join again under its name and is
// given the task again that was under way. An attachment is announced (id counted from 0 in each direction, byte
// length) and then travels in chunks; its schema follows from the task and is not sent.
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
inline constexpr std::uint16_t protocol_version = 8;

struct Versions {
  std::uint16_t oldest = protocol_version, newest = protocol_version;
  [[nodiscard]] constexpr bool contains(std::uint16_t version) const { return oldest <= version && version <= newest; }
};
/// What this program speaks.
inline constexpr Versions spoken_versions{7, protocol_version};

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
/// What a task counted or measured: see plan/tasks.hpp.
using Figures = JsonText<60 * 1024>;
/// Figures of samples: learn::Reference.
using Reference = JsonText<4096>;

/// What a task is called: plan/tasks.hpp has those of this program.
using TaskName = Text<32>;
/// States that one task may work on.
inline constexpr std::size_t max_inputs = 512;

// ---- client to server

/// First message of a connection, and the one that a peer of any version must be able to read: what stands here keeps
/// its place in all later versions, which append. Of a version before 7 nothing is read but its number.
struct Hello {
  std::uint16_t newest = protocol_version;
  Text<64> name;
  Text<64> software;
  Flag is_check = {};  ///< Ends the conversation after Welcome, and leaves the client of that name where it is.
  std::uint16_t oldest = spoken_versions.oldest;
  List<TaskName, 64> tasks = {};  ///< That the client can do; the server may not know all of them.

  static constexpr std::uint16_t first_with_range = 7;
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
  List<std::uint32_t, 8> shape = {};  ///< Of one sample.
  Digest schema;                      ///< Of the federated model, as the client built it.
  Architecture architecture;          ///< Of the federated model.
  Settings own_model;                 ///< Spec of the model it pre-trains, if not the federated one; else empty.
  Architecture own_architecture;
  Flag shares_with_peers;     ///< Consents that its pre-trained model goes to other clients as a teacher.
  Settings samples = {};      ///< plan::SampleReport; empty: it says nothing of its classes and values.
  Flag withholds_model = {};  ///< Its pre-trained model does not leave the silo at all: answers and sums may.
  template <class A>
  void serialize(A& a) {
    a(num_examples, num_held_out, num_classes, shape, schema, architecture, own_model, own_architecture,
      shares_with_peers, samples, withholds_model);
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

/// The inputs of a task that the client does not hold, by place; they follow in this order. Said once a task, and only
/// where something is missing.
struct Fetch {
  TaskId task = 0;
  List<std::uint16_t, max_inputs> inputs;
  template <class A>
  void serialize(A& a) {
    a(task, inputs);
  }
};

/// The task is done.
struct Result {
  TaskId task = 0;
  Figures figures;              ///< What the task's kind reports in numbers; empty: nothing.
  std::uint64_t num_bytes = 0;  ///< Of a state that is sent when the server grants it; 0: there is none.
  template <class A>
  void serialize(A& a) {
    a(task, figures, num_bytes);
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
  worker,    ///< The process of its own that trains. From version 8 on.
};
inline constexpr Failure last_failure = Failure::worker;

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
    case Failure::worker:
      return "worker";
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
    case Failure::worker:
      return "its worker process died, hung or broke its protocol, and was started again in vain";
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
  Reference reference = {};  ///< learn::Reference: what the client's samples are compared with; empty: nothing yet.
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

/// Work for a client. So many Inputs follow at once.
struct Task {
  TaskId task = 0;
  TaskName kind;
  Settings settings;             ///< As the kind declares them; empty: it has none.
  std::uint16_t num_inputs = 0;  ///< At most max_inputs.
  /// The client holds these inputs until it is given another task that says so. Others it forgets with their task.
  Flag keeps_inputs;
  template <class A>
  void serialize(A& a) {
    a(task, kind, settings, num_inputs, keeps_inputs);
  }
};

/// A state that the task before works on. It is not sent where the client holds a state of this digest.
struct Input {
  Text<32> name;   ///< Its part in the task: "model", "teacher".
  Digest digest;   ///< SHA-256 of the state's bytes.
  Text<64> owner;  ///< The client that trained it; empty: the server made it.
  Settings form;   ///< plan::Form: what schema it has.
  template <class A>
  void serialize(A& a) {
    a(name, digest, owner, form);
  }
};

/// The state of the result may be sent now.
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
template <class M, std::uint8_t Id>
struct Row {
  using Message = M;
  static constexpr std::uint8_t id = Id;
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

// Retired: 3, 4 and 5 of the client, 3 to 10 of the server (until version 6).
struct ClientTable : Table<Row<Hello, 0>,           //
                           Row<Join, 1>,            //
                           Row<ProgressReport, 2>,  //
                           Row<TaskFailed, 6>,      //
                           Row<Attachment, 7>,      //
                           Row<Fetch, 8>,           //
                           Row<Result, 9>> {
  static constexpr std::string_view side = "client";
};
struct ServerTable : Table<Row<Welcome, 0>,         //
                           Row<Joined, 1>,          //
                           Row<Refused, 2>,         //
                           Row<Grant, 11>,          //
                           Row<ResultRefused, 12>,  //
                           Row<Finished, 13>,       //
                           Row<Attachment, 14>,     //
                           Row<Notice, 15>,         //
                           Row<Task, 16>,           //
                           Row<Input, 17>> {
  static constexpr std::string_view side = "server";
};
static_assert(ClientTable::has_distinct_ids() && ServerTable::has_distinct_ids());

using ClientMessage = ClientTable::Message;
using ServerMessage = ServerTable::Message;

}  // namespace headstart::wire

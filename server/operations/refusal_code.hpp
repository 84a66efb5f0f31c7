// Why a peer was not admitted, as a code: the sentence beside it is for people.
#pragma once

#include <cstdint>

namespace headstart::server {

enum class RefusalCode : std::uint8_t {
  unusable,         ///< Its messages or the server's files cannot be used: an error, no decision.
  version,          ///< It speaks no protocol version of the server.
  name,             ///< Its name is none.
  certificate,      ///< Its certificate is that of another name.
  not_listed,       ///< It is not on the list of the clients that may join.
  unknown_tasks,    ///< The run has tasks that it does not know.
  stopping,         ///< The server is being stopped.
  over,             ///< The run is over.
  name_taken,       ///< A client of that name is in the run.
  name_joining,     ///< Another connection is in its handshake under that name.
  full,             ///< All places of the run are taken.
  started,          ///< The run has started, and takes no newcomers or no more of them.
  too_early,        ///< The run takes newcomers when its rounds begin.
  not_of_the_run,   ///< The run is resumed with the clients that it began with.
  conduct,          ///< It has broken the protocol too often.
  check,            ///< It said that it only checks, and went on.
  own_model,        ///< Its own model is beyond the limits, or is none.
  misfit,           ///< Its samples or its model are not those of the terms.
  schema,           ///< It built the federated model otherwise.
  samples,          ///< The values of its samples cannot be those of the run.
  changed,          ///< It returns with other sizes, model or consent than it joined with.
  changed_samples,  ///< It returns with other samples than it joined with.
};
inline constexpr RefusalCode last_refusal_code = RefusalCode::changed_samples;

}  // namespace headstart::server

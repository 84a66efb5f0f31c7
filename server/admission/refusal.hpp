// The answer to a peer that is not admitted.
#pragma once

#include <string>

#include "server/operations/refusal_code.hpp"

namespace headstart::server {

struct Refusal {
  RefusalCode code = RefusalCode::unusable;
  std::string words;        ///< For the peer and the log. What the peer said is in quotation marks, but not bounded.
  bool is_for_now = false;  ///< The same client may be admitted a little later.
};

}  // namespace headstart::server

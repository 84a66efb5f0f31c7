// What a silo's word on its model forbids.
#pragma once

#include "shared/base/error.hpp"

namespace headstart::client {

/// Thrown where the server asks for what `share_model: answers` keeps at home.
inline Error withheld_model() {
  return {Errc::usage,
          "the server asks for this silo's pre-trained model, or for its answer to each sample, and "
          "share_model here is answers: its weighted answers to public samples alone leave"};
}

}  // namespace headstart::client

// What two peers say to each other where there is no server. Both sides say the same kinds of things.
//
//   PeerHello ------------------------>  <------------------------ PeerHello | PeerRefused
//   Ready (a round's message is done) ->  <----------------------- Ready
//   Pull (of a round) ---------------->  <------------------------ that message, as an attachment, or Gone
//   Done (needs nothing any more) ---->  <------------------------ Done
//
// A message is pulled by whoever wants it, so that to ask twice is harmless. After a connection was lost both sides
// greet again and say once more what is ready. An attachment's schema follows from the method and is not sent.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>

#include "shared/wire/messages.hpp"

namespace headstart::wire {

/// Raised with every change of a message between peers.
inline constexpr std::uint16_t peer_protocol_version = 1;
inline constexpr Versions spoken_peer_versions{1, peer_protocol_version};

/// First message of either side, and the one that a peer of any version must be able to read: later versions append.
struct PeerHello {
  std::uint16_t newest = peer_protocol_version;
  std::uint16_t oldest = spoken_peer_versions.oldest;
  Text<64> name;
  Text<64> software;
  Flag is_check = {};             ///< The other side refuses, or ends the connection in order: it may take part.
  std::uint32_t rounds_done = 0;  ///< That this side has combined.
  List<Text<64>, 64> sections;    ///< Of what all peers must have alike: its parts, by name.
  List<Digest, 64> digests;       ///< Of each section, in the same order.

  [[nodiscard]] Versions versions() const { return {oldest, newest}; }
  template <class A>
  void serialize(A& a) {
    a(newest, oldest, name, software, is_check, rounds_done, sections, digests);
  }
};

/// The other side is refused, and the connection closed.
struct PeerRefused {
  Reason reason;
  template <class A>
  void serialize(A& a) {
    a(reason);
  }
};

/// This side's message of a round is done.
struct Ready {
  std::uint32_t round = 0;
  std::uint64_t num_bytes = 0;  ///< 0: there is none for the other side in this round.
  Digest digest = {};           ///< SHA-256 of its bytes; empty without any.
  template <class A>
  void serialize(A& a) {
    a(round, num_bytes, digest);
  }
};

/// The message of that round, which was said to be ready, is wanted. One at a time.
struct Pull {
  std::uint32_t round = 0;
  template <class A>
  void serialize(A& a) {
    a(round);
  }
};

/// That message is not kept any more: this side is two rounds further at least.
struct Gone {
  std::uint32_t round = 0;
  template <class A>
  void serialize(A& a) {
    a(round);
  }
};

/// This side has combined its last round.
struct Done {
  template <class A>
  void serialize(A& /*a*/) {}
};

struct PeerTable : Table<Row<PeerHello, 0>,    //
                         Row<PeerRefused, 1>,  //
                         Row<Ready, 2>,        //
                         Row<Pull, 3>,         //
                         Row<Gone, 4>,         //
                         Row<Done, 5>,         //
                         Row<Attachment, 6>> {
  static constexpr std::string_view side = "peer";
};
static_assert(PeerTable::has_distinct_ids());

using PeerMessage = PeerTable::Message;

}  // namespace headstart::wire

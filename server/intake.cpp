#include "server/intake.hpp"

#include <utility>

#include "shared/net/offload.hpp"

namespace headstart::server {

net::Task<std::string> take_state(const RunContext& context, const ClientSession& client, Upload& upload,
                                  learn::Schema schema, std::string what, std::function<void(wire::PackedState)> use) {
  struct Taken {
    std::string digest;
    std::optional<std::string> offence;
  };
  auto taking = net::offload(context.pool, [&] {
    Taken taken{digest_of(upload), {}};
    try {
      use(received_state(upload, schema, client.name()));
    } catch (const Error& error) {
      if (error.code() != Errc::run_failed) throw;
      taken.offence = error.what();
    }
    return taken;
  });
  const Taken taken = co_await std::move(taking);
  context.folder.audit().received(client.name(), {what, upload.num_bytes(), taken.digest}, taken.offence);
  if (taken.offence) throw Error(Errc::run_failed, *taken.offence);
  co_return taken.digest;
}

net::Task<Inspection> inspect(const RunContext& context, const ClientSession& client, Upload& upload,
                              const UploadSum& sum, NormBound bound, std::string what) {
  auto inspecting = net::offload(context.pool, [&] { return sum.inspect(upload, bound); });
  Inspection seen = co_await std::move(inspecting);
  context.folder.audit().received(client.name(), {what, upload.num_bytes(), seen.digest}, seen.offence, seen.norm);
  co_return seen;
}

}  // namespace headstart::server

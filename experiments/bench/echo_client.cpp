// A client whose training is replaced: it returns the global model as its update. For benchmarks of all that is not
// training: the real client loop, codec, channel and server.
//   echo_client URL NAME
#include <iostream>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "client/stay_in_run.hpp"
#include "shared/base/error.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"

namespace {

using namespace headstart;

class EchoWorker final : public client::Worker {
 public:
  wire::Join join(const session::Terms& terms) override {
    terms_ = terms;
    schema_ = schema_of(terms.model);
    wire::Join join;
    join.num_examples = 100;
    join.num_classes = static_cast<std::uint32_t>(terms.task.num_classes);
    join.channels = static_cast<std::uint32_t>(terms.task.channels);
    join.height = static_cast<std::uint32_t>(terms.task.height);
    join.width = static_cast<std::uint32_t>(terms.task.width);
    join.schema = schema_.digest();
    join.architecture = terms.model.architecture();
    return join;
  }
  learn::Schema global_schema() override { return schema_; }
  learn::Schema schema_of(const learn::ModelSpec& spec) override {
    return learn::make_model(spec, terms_.task, Seed(1))->schema();
  }
  wire::PretrainDone pretrain(const client::TaskContext&) override { return {}; }
  wire::PackedState pretrained(const client::TaskContext&) override {
    return wire::PackedState(learn::make_model(terms_.model, terms_.task, Seed(1))->state());
  }
  wire::PackedState train(const wire::PackedState& global, std::uint32_t, const client::TaskContext&) override {
    return global;
  }
  learn::Evaluation evaluate(const wire::PackedState&, const std::optional<learn::ModelSpec>&) override {
    learn::Evaluation none;
    none.correct.resize(static_cast<std::size_t>(terms_.task.num_classes));
    none.total = none.correct;
    none.predicted = none.correct;
    return none;
  }
  wire::PackedState logits(const wire::PackedState&, const client::TaskContext&) override { return refuse(); }
  wire::PackedState distill(const wire::PackedState& student, const wire::PackedState&,
                            const std::vector<client::Teacher>&, const client::TaskContext&) override {
    return student;
  }
  wire::PackedState reestimate_statistics(const wire::PackedState& model) override { return model; }

 private:
  static wire::PackedState refuse() { throw Error(Errc::run_failed, "the echo client has no data"); }
  session::Terms terms_;
  learn::Schema schema_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 6) return std::cerr << "usage: echo_client URL NAME [AUTHORITY CERTIFICATE KEY]\n", 2;
  net::WebSocketOptions options;
  if (argc == 6) {
    const net::TlsFiles files{argv[3], argv[4], argv[5], {}};
    options.tls = std::make_shared<net::Tls>(files, net::Tls::Side::client);
  }
  EchoWorker worker;
  boost::asio::io_context io(1);
  boost::asio::thread_pool pool(1);
  client::ClientObserver silent;
  const net::Url url = net::parse_url(argv[1]);
  const auto dial = [&] { return net::connect(io.get_executor(), url, options); };
  auto running = client::stay_in_run(io.get_executor(), dial,
                                     {argv[2], &worker, &pool, &silent, std::chrono::steady_clock::now, {}}, {});
  int code = 0;
  boost::asio::co_spawn(io, std::move(running),
                        [&](const std::exception_ptr& failure, const std::string&) { code = failure ? 1 : 0; });
  io.run();
  pool.join();
  return code;
}

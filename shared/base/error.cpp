#include "shared/base/error.hpp"

namespace headstart {

std::string exit_code_help() {
  return "Exit codes:\n"
         "  0    done\n"
         "  1    internal error (please report it)\n"
         "  2    command line or configuration\n"
         "  3    data, manifest or model file missing, damaged or unfitting\n"
         "  4    run folder exists, cannot be written, or disk full\n"
         "  5    network: port in use, server not reachable, connection lost\n"
         "  6    refused by the peer (name, protocol version, model, data)\n"
         "  7    the peer broke the protocol\n"
         "  8    the run could not go on (clients lost, training diverged)\n"
         "  9    the server closed the connection before the run was over\n"
         "  130  stopped by the user\n";
}

}  // namespace headstart

// Floor of a communication round without training: ten processes, ten sockets, 1 MiB writes, the same bytes down and
// up, summed in float32.
//   floor_round CLIENTS BYTES ROUNDS     prints the seconds of each round
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace {

constexpr std::size_t block = 1 << 20;

void write_all(int fd, const char* data, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::write(fd, data + done, std::min(block, size - done));
    if (n <= 0) std::abort();
    done += static_cast<std::size_t>(n);
  }
}

void read_all(int fd, char* data, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::read(fd, data + done, std::min(block, size - done));
    if (n <= 0) std::abort();
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::cerr << "usage: floor_round CLIENTS BYTES ROUNDS\n", 2;
  const int clients = std::atoi(argv[1]);
  const std::size_t bytes = std::strtoull(argv[2], nullptr, 10) / 4 * 4;
  const int rounds = std::atoi(argv[3]);
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || ::listen(listener, clients) != 0)
    return 1;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  for (int i = 0; i < clients; ++i) {
    if (::fork() != 0) continue;
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), length) != 0) std::abort();
    std::vector<char> model(bytes);
    for (int round = 0; round < rounds; ++round) {
      read_all(fd, model.data(), bytes);
      write_all(fd, model.data(), bytes);
    }
    ::_exit(0);
  }
  std::vector<int> peers(static_cast<std::size_t>(clients));
  for (int& fd : peers) fd = ::accept(listener, nullptr, nullptr);
  const std::vector<char> global(bytes);
  std::vector<float> sum(bytes / 4);
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    std::mutex mutex;
    std::vector<std::jthread> threads;
    for (const int fd : peers) {
      threads.emplace_back([&, fd] {
        write_all(fd, global.data(), bytes);
        std::vector<float> update(bytes / 4);
        read_all(fd, reinterpret_cast<char*>(update.data()), bytes);
        const std::scoped_lock lock(mutex);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += update[i];
      });
    }
    threads.clear();
    std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() << std::endl;
  }
  while (::wait(nullptr) > 0) {
  }
}

#include "server/uploads/upload_slots.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <doctest/doctest.h>

#include "tests/support/manual_loop.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart::server {
namespace {

namespace asio = boost::asio;

std::vector<std::byte> pattern(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

void write_and_check(Upload& upload, const std::vector<std::byte>& bytes) {
  upload.sink().write(0, std::span(bytes).first(100));
  upload.sink().write(100, std::span(bytes).subspan(100));
  std::vector<std::byte> read;
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    CHECK(offset == read.size());
    read.insert(read.end(), block.begin(), block.end());
    return true;
  });
  const bool is_same = read == bytes;
  CHECK(is_same);
}

TEST_CASE("uploads within the budget are in memory, a larger one is on disk, and both give back what was written") {
  const test::TemporaryFolder folder;
  asio::io_context io;
  UploadSlots slots(io.get_executor(), 3'000'000, folder.path());
  const auto use = [&](std::size_t size) -> net::Task<> {
    Upload upload = co_await slots.acquire(size);
    write_and_check(upload, pattern(size));
  };
  asio::co_spawn(io, use(2'500'000), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  io.run();
  CHECK(slots.num_staged() == 0);
  io.restart();
  asio::co_spawn(io, use(3'500'000), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  io.run();
  CHECK(slots.num_staged() == 1);
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a staging file that had a name has lost it, and holds what was written") {
  const test::TemporaryFolder folder;
  const int descriptor = session::open_unlinked(folder.path());
  REQUIRE(descriptor >= 0);
  CHECK(std::filesystem::is_empty(folder.path()));
  CHECK(::pwrite(descriptor, "update", 6, 100) == 6);
  std::string read(6, ' ');
  CHECK(::pread(descriptor, read.data(), read.size(), 100) == 6);
  CHECK(read == "update");
  CHECK((::fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0);
  ::close(descriptor);
  CHECK(session::open_unlinked(folder / "missing") == -1);
}

TEST_CASE("who waits gets the memory that is given back; who waits too long is staged on disk") {
  const test::TemporaryFolder folder;
  test::ManualLoop loop;
  asio::io_context& io = loop.io;
  UploadSlots slots(loop.executor(), 1000, folder.path());
  std::optional<Upload> slow;
  std::vector<int> order;
  const auto hold = [&]() -> net::Task<> { slow.emplace(co_await slots.acquire(1000)); };
  const auto queue = [&](int id) -> net::Task<> {
    Upload upload = co_await slots.acquire(1000);
    order.push_back(id);
  };
  asio::co_spawn(io, hold(), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  asio::co_spawn(io, queue(1), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  loop.run();  // ends when the waiter's patience has: nobody gave memory back
  CHECK(loop.passed() == UploadSlots::patience);
  CHECK(order == std::vector<int>{1});
  CHECK(slots.num_staged() == 1);

  io.restart();
  asio::co_spawn(io, queue(2), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  asio::co_spawn(io, queue(3), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  asio::post(io, [&] { slow.reset(); });
  loop.run();
  CHECK(loop.passed() == UploadSlots::patience);
  CHECK(order == std::vector<int>{1, 2, 3});
  CHECK(slots.num_staged() == 1);
}

TEST_CASE("who waits while memory is given back is not staged, however long the queue") {
  const test::TemporaryFolder folder;
  asio::io_context io;
  UploadSlots slots(io.get_executor(), 1000, folder.path());
  asio::steady_timer timer(io);
  // Each holds the memory for less than the patience, and the last waits for longer than that.
  constexpr auto held = UploadSlots::patience / 2;
  int num_done = 0;
  const auto use = [&]() -> net::Task<> {
    Upload upload = co_await slots.acquire(1000);
    timer.expires_after(held);
    co_await timer.async_wait(asio::use_awaitable);
    ++num_done;
  };
  for (int i = 0; i < 4; ++i) asio::co_spawn(io, use(), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  io.run();
  CHECK(num_done == 4);
  CHECK(slots.num_staged() == 0);
}

}  // namespace
}  // namespace headstart::server

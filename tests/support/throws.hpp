// What a call throws, as text and as code.
#pragma once

#include <optional>
#include <string>

#include <doctest/doctest.h>

#include "shared/base/error.hpp"

namespace headstart::test {

/// The message of the Error that `call` throws; "(no error)" where it throws none.
template <class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

/// The same of an Error that must have this code.
template <class Call>
std::string error_of(Errc code, Call call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "(no error)";
}

template <class Call>
std::optional<Errc> code_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return std::nullopt;
}

}  // namespace headstart::test

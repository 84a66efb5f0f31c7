// Owners for objects of C libraries.
#pragma once

namespace headstart {

/// A deleter for std::unique_ptr that calls `Free`: std::unique_ptr<X509, CDeleter<X509_free>>.
template <auto Free>
struct CDeleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};

}  // namespace headstart

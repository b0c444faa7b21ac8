// The engine's own threads. They are started for a call and joined before it returns, which takes some 20 us: there is
// no pool that a fork could lose or that waits beside a program that classifies nothing.
#pragma once

#include <cstddef>

#ifndef DENDRITIC_BERT_NO_THREADS
#include <exception>
#include <mutex>
#include <thread>
#include <vector>
#endif

namespace dendritic_bert::engine {

// Calls body() on the calling thread and at the same time on at most count - 1 others. Fewer of them are no error.
template <class Body>
void run_on_threads([[maybe_unused]] size_t count, const Body& body) {
#ifdef DENDRITIC_BERT_NO_THREADS
  body();
#else
  if (count <= 1) return body();
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto guarded_body = [&] {
    try {
      body();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex);
      error = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(count - 1);
  try {
    while (others.size() + 1 < count) others.emplace_back(guarded_body);
  } catch (const std::exception&) {}  // the system gives no more threads, or no memory for one
  guarded_body();
  for (std::thread& other : others) other.join();
  if (error) std::rethrow_exception(error);
#endif
}

}  // namespace dendritic_bert::engine

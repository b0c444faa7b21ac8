// The workspaces of the threads that have used a tokenizer. As many are kept as there were users at once, up to a
// limit.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "tokenizer.h"

namespace dendritic_bert::engine {

// Any thread may borrow. There is no lock, which a process could be forked while another thread holds.
class Workspaces {
 public:
  explicit Workspaces(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  ~Workspaces() {
    for (std::atomic<Workspace*>& place : idle_) delete place.load();
  }
  Workspaces(const Workspaces&) = delete;
  Workspaces& operator=(const Workspaces&) = delete;

  // A workspace that goes back at the end of its scope.
  class Borrowed {
   public:
    explicit Borrowed(Workspaces& from) : from_(from), workspace_(from.take()) {}
    ~Borrowed() { from_.give_back(std::move(workspace_)); }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;
    Workspace& operator*() const { return *workspace_; }
    Workspace* operator->() const { return workspace_.get(); }

   private:
    Workspaces& from_;
    std::unique_ptr<Workspace> workspace_;
  };

 private:
  static constexpr size_t most_idle = 64;

  std::unique_ptr<Workspace> take() {
    for (std::atomic<Workspace*>& place : idle_)
      if (place.load(std::memory_order_relaxed))
        if (Workspace* found = place.exchange(nullptr)) return std::unique_ptr<Workspace>(found);
    return std::make_unique<Workspace>(tokenizer_.make_workspace());
  }

  void give_back(std::unique_ptr<Workspace> workspace) {
    workspace->rows.shrink();
    for (std::atomic<Workspace*>& place : idle_) {
      Workspace* empty = nullptr;
      if (place.compare_exchange_strong(empty, workspace.get())) {
        workspace.release();
        return;
      }
    }
  }

  const Tokenizer& tokenizer_;
  std::array<std::atomic<Workspace*>, most_idle> idle_ = {};
};

// A tokenizer with the workspaces of all who use it.
struct SharedTokenizer {
  const Tokenizer tokenizer;
  Workspaces workspaces;

  explicit SharedTokenizer(Tokenizer tokenizer_) : tokenizer(std::move(tokenizer_)), workspaces(tokenizer) {}
};

}  // namespace dendritic_bert::engine

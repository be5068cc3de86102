#include "services/allocation/watch_hub.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

absl::Status Stopping() {
  return WithRetryDelay(
      MakeError(absl::StatusCode::kUnavailable, "SERVER_STOPPING",
                "the allocator is stopping; watch again with the last etag as "
                "known_etag"),
      absl::Seconds(1));
}

absl::Status TooMany(int64_t max_watchers) {
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHES",
                absl::StrCat(max_watchers,
                             " bit maps are watched already; try again later")),
      absl::Seconds(10));
}

}  // namespace

WatchHub::WatchHub(BitMapCache* maps, std::chrono::milliseconds patience,
                   int64_t max_watchers)
    : maps_(maps),
      patience_(patience),
      max_watchers_(max_watchers),
      counters_(std::make_shared<WatchCounters>()),
      thread_([this] { Run(); }) {}

WatchHub::~WatchHub() {
  Stop();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

grpc::ServerWriteReactor<v1::GetBitMapResponse>* WatchHub::Watch(
    grpc::CallbackServerContext* context, const v1::GetBitMapRequest& request,
    const absl::Status& admitted) {
  auto watcher = std::make_shared<BitMapWatcher>(
      context, request, counters_,
      [this](const BitMapWatcher* ended) { Remove(ended); });
  absl::Status refused = admitted;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    // Known before it is answered: no change is missed in between.
    by_model_[request.model()][watcher.get()] = watcher;
    ++count_;
    if (refused.ok() && count_ > max_watchers_) {
      refused = TooMany(max_watchers_);
    }
    if (refused.ok() && stopping_) refused = Stopping();
    if (refused.ok()) new_.push_back(watcher);
  }
  if (!refused.ok()) {
    watcher->End(refused);
  } else {
    wake_.notify_one();
  }
  return watcher.get();
}

void WatchHub::Changed(const std::string& model) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    changed_.insert(ModelName(model));
  }
  wake_.notify_one();
}

void WatchHub::Stop() {
  std::vector<Watcher> watchers;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    new_.clear();
    for (const auto& [model, all] : by_model_) {
      for (const auto& [key, watcher] : all) watchers.push_back(watcher);
    }
  }
  for (const Watcher& watcher : watchers) watcher->End(Stopping());
}

void WatchHub::Run() {
  // Often enough that nobody waits much longer than the patience.
  const auto pause = std::max<std::chrono::milliseconds>(
      patience_ / 4, std::chrono::milliseconds(1));
  auto next_check = BitMapWatcher::Clock::now() + pause;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ending_) {
    wake_.wait_until(lock, next_check, [this] {
      return ending_ || !new_.empty() || !changed_.empty();
    });
    std::vector<Watcher> due = std::exchange(new_, {});
    for (const std::string& model : std::exchange(changed_, {})) {
      const auto found = by_model_.find(model);
      if (found == by_model_.end()) continue;
      for (const auto& [key, watcher] : found->second) due.push_back(watcher);
    }
    lock.unlock();
    Answer(due);
    due.clear();
    if (BitMapWatcher::Clock::now() >= next_check) {
      EndSlow();
      next_check = BitMapWatcher::Clock::now() + pause;
    }
    lock.lock();
  }
}

void WatchHub::Answer(const std::vector<Watcher>& watchers) {
  for (const Watcher& watcher : watchers) {
    const auto answer = maps_->Get(watcher->request());
    if (answer.ok()) {
      watcher->Offer(*answer);
    } else {
      watcher->End(answer.status());
    }
  }
}

void WatchHub::EndSlow() {
  std::vector<Watcher> watchers;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [model, all] : by_model_) {
      for (const auto& [key, watcher] : all) watchers.push_back(watcher);
    }
  }
  const auto now = BitMapWatcher::Clock::now();
  for (const Watcher& watcher : watchers) watcher->EndIfSlow(now, patience_);
}

void WatchHub::Remove(const BitMapWatcher* watcher) {
  Watcher last;  // destroyed without the lock
  std::lock_guard<std::mutex> lock(mutex_);
  const auto model = by_model_.find(watcher->request().model());
  last = std::move(model->second[watcher]);
  model->second.erase(watcher);
  if (model->second.empty()) by_model_.erase(model);
  --count_;
}

void WatchHub::AddStatistics(v1::Statistics* out) const {
  std::lock_guard<std::mutex> lock(mutex_);
  out->set_watchers(count_);
  out->set_coalesced_updates(counters_->coalesced);
  out->set_slow_watchers_ended(counters_->slow_ended);
}

}  // namespace ratequant::allocation

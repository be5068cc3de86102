#include "services/calibration/job_queue.h"

#include <algorithm>
#include <utility>

namespace ratequant::calibration {

JobQueue::JobQueue(const Options& options, std::function<absl::Time()> clock)
    : options_(options), clock_(std::move(clock)) {
  for (int i = 0; i < options_.max_concurrent; ++i) {
    threads_.emplace_back(&JobQueue::Loop, this);
  }
}

JobQueue::~JobQueue() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    clients_.clear();
    waiting_ = 0;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

uint64_t JobQueue::Add(Job job) {
  Notes notes;
  uint64_t number = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const int idle = options_.max_concurrent - running_;
    if (stop_ || waiting_ >= options_.max_waiting + idle) return 0;
    number = next_number_++;
    std::string client = job.client;
    clients_[std::move(client)].push_back({number, std::move(job)});
    ++waiting_;
    changed_.notify_all();
    notes = TellPlaces();
  }
  for (const auto& note : notes) note();
  return number;
}

bool JobQueue::Remove(uint64_t number) {
  Notes notes;
  Waiting removed;  // freed without the lock
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto client = clients_.begin(); client != clients_.end(); ++client) {
      std::deque<Waiting>& jobs = client->second;
      const auto it =
          std::find_if(jobs.begin(), jobs.end(),
                       [=](const Waiting& w) { return w.number == number; });
      if (it == jobs.end()) continue;
      removed = std::move(*it);
      jobs.erase(it);
      if (jobs.empty()) clients_.erase(client);
      --waiting_;
      changed_.notify_all();
      notes = TellPlaces();
      break;
    }
  }
  for (const auto& note : notes) note();
  return removed.number != 0;
}

absl::optional<absl::Duration> JobQueue::ExpectedWait() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return WaitOf(waiting_ + 1);
}

bool JobQueue::WaitIdle(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_until(lock, absl::ToChronoTime(deadline), [this]() {
    return waiting_ == 0 && running_ == 0 && ending_ == 0;
  });
}

int JobQueue::waiting() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return waiting_;
}

int JobQueue::running() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return running_;
}

// Clients take turns in the order of their names, from the one after the last
// that had its turn.
std::vector<const JobQueue::Waiting*> JobQueue::Order() const {
  std::vector<const Waiting*> order;
  for (size_t turn = 0; order.size() < static_cast<size_t>(waiting_); ++turn) {
    const auto add = [&](auto from, auto to) {
      for (auto client = from; client != to; ++client) {
        if (turn < client->second.size()) {
          order.push_back(&client->second[turn]);
        }
      }
    };
    const auto first = clients_.upper_bound(last_client_);
    add(first, clients_.end());
    add(clients_.begin(), first);
  }
  return order;
}

JobQueue::Waiting JobQueue::Next() {
  auto client = clients_.upper_bound(last_client_);
  if (client == clients_.end()) client = clients_.begin();
  last_client_ = client->first;
  Waiting next = std::move(client->second.front());
  client->second.pop_front();
  if (client->second.empty()) clients_.erase(client);
  --waiting_;
  return next;
}

absl::optional<absl::Duration> JobQueue::WaitOf(int position) const {
  if (!usual_time_.has_value()) return absl::nullopt;
  // Those that run are half done, on average.
  return *usual_time_ * (position - 0.5) / options_.max_concurrent;
}

JobQueue::Notes JobQueue::TellPlaces() const {
  Notes notes;
  int position = running_ - options_.max_concurrent;
  for (const Waiting* waiting : Order()) {
    if (++position < 1) continue;
    const Place place = {position, WaitOf(position)};
    notes.push_back([moved = waiting->job.moved, place]() { moved(place); });
  }
  return notes;
}

void JobQueue::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this]() { return waiting_ > 0 || stop_; });
    if (stop_) return;
    Waiting next = Next();
    ++running_;
    const Notes notes = TellPlaces();
    lock.unlock();
    for (const auto& note : notes) note();
    const absl::Time begin = clock_();
    Epilogue epilogue = next.job.run();
    next = Waiting();  // and what it holds
    lock.lock();
    const absl::Duration took = clock_() - begin;
    usual_time_ = usual_time_.has_value() ? (*usual_time_ + took) / 2 : took;
    --running_;
    ++ending_;
    lock.unlock();
    epilogue();
    epilogue = nullptr;
    lock.lock();
    --ending_;
    changed_.notify_all();
  }
}

}  // namespace ratequant::calibration

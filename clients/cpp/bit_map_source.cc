#include "clients/cpp/bit_map_source.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/resource_names.h"
#include "clients/cpp/status.h"

namespace ratequant::client {
namespace {

v1::GetBitMapRequest Normalized(v1::GetBitMapRequest request) {
  request.set_model(ModelName(request.model()));
  request.clear_known_etag();
  return request;
}

std::string ShapeText(const kv::KvGeometry& g) {
  return absl::StrCat(g.layers, " layers of ", g.kv_heads,
                      " KV heads with head_dim ", g.head_dim);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BitMapSource>> BitMapSource::Start(
    std::shared_ptr<Client> client, v1::GetBitMapRequest request,
    BitMapSourceOptions options, Environment environment) {
  std::unique_ptr<BitMapSource> source(
      new BitMapSource(std::move(client), Normalized(std::move(request)),
                       std::move(options), std::move(environment)));
  const bool from_disk = source->LoadFromDisk();
  try {
    source->thread_ = std::thread([raw = source.get()] { raw->Follow(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the bit map source can't start its thread: ", error.what()));
  }
  absl::Status started = source->AwaitFirst(from_disk);
  if (!started.ok()) return started;
  return source;
}

BitMapSource::BitMapSource(std::shared_ptr<Client> client,
                           v1::GetBitMapRequest request,
                           BitMapSourceOptions options, Environment environment)
    : client_(std::move(client)),
      options_(std::move(options)),
      environment_(std::move(environment)),
      disk_(options_.folder.empty()
                ? std::nullopt
                : std::make_optional<DiskCopy>(options_.folder, request,
                                               environment_)),
      request_(std::move(request)) {}

BitMapSource::~BitMapSource() {
  stop_.Cancel();
  if (thread_.joinable()) thread_.join();
}

BitMapSourceState BitMapSource::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

// Whether there is a map now.
bool BitMapSource::LoadFromDisk() {
  if (!disk_.has_value()) return false;
  absl::StatusOr<SavedBitMap> saved = disk_->Load();
  absl::Status status = saved.status();
  if (saved.ok()) {
    auto loaded = LoadChecked(std::move(saved->answer));
    if (loaded.ok()) {
      newest_ = *std::move(loaded);
      request_.set_known_etag(newest_->etag);
      handoff_.Offer(newest_);
      handoff_.Take();
    } else {
      status = absl::Status(
          loaded.status().code(),
          absl::StrCat(disk_->path(), ": ", loaded.status().message()));
    }
  }
  absl::MutexLock lock(&mutex_);
  if (status.ok()) state_.confirmed = saved->received;
  if (!absl::IsNotFound(status)) state_.disk = status;
  return newest_ != nullptr;
}

absl::StatusOr<std::shared_ptr<const LoadedBitMap>> BitMapSource::LoadChecked(
    v1::GetBitMapResponse answer) const {
  auto loaded = LoadBitMap(std::move(answer));
  if (!loaded.ok() || !options_.geometry.has_value()) return loaded;
  const std::string wanted = ShapeText(*options_.geometry);
  const std::string found = ShapeText((*loaded)->config.geometry);
  if (wanted == found) return loaded;
  return absl::FailedPreconditionError(
      absl::StrCat("bit map ", (*loaded)->etag, " is for ", found,
                   "; this engine's model has ", wanted));
}

absl::Status BitMapSource::AwaitFirst(bool from_disk) {
  environment_.wait(settled_,
                    from_disk ? options_.fresh_wait : options_.first_wait);
  handoff_.Take();
  if (Current() != nullptr) return absl::OkStatus();
  const BitMapSourceState now = state();
  absl::Status failed = now.allocator;
  if (now.disk.ok()) return failed;
  return absl::Status(
      failed.code(),
      absl::StrCat(failed.message(),
                   "; nor can the disk copy be used: ", now.disk.message()));
}

void BitMapSource::Follow() {
  absl::Duration backoff = options_.initial_backoff;
  while (!stop_.cancelled()) {
    answered_ = false;
    const absl::Status ended = FollowOnce();
    if (stop_.cancelled()) return;
    SetAllocator(ended, /*settled=*/!IsUnreachable(ended));
    if (answered_) backoff = options_.initial_backoff;
    environment_.wait(stop_.notification(),
                      backoff * (0.5 + 0.5 * environment_.random()));
    backoff = std::min(2 * backoff, options_.max_backoff);
  }
}

// The first answer comes from a read, which any replica may answer, and the
// rest from a stream.
absl::Status BitMapSource::FollowOnce() {
  const auto first = client_->GetBitMap(request_, &stop_);
  if (!first.ok()) return first.status();
  Answered(*first);
  return client_->WatchBitMap(
      request_,
      [this](const v1::GetBitMapResponse& answer) { Answered(answer); },
      &stop_);
}

void BitMapSource::Answered(const v1::GetBitMapResponse& answer) {
  answered_ = true;
  const absl::StatusOr<bool> news = Accept(answer);
  SetAllocator(news.status(), /*settled=*/true);
  // Last: the engine needn't wait for the disk.
  if (news.ok() && *news) Keep(answer);
}

// Whether the answer is another map than the newest so far.
absl::StatusOr<bool> BitMapSource::Accept(const v1::GetBitMapResponse& answer) {
  const bool known = newest_ != nullptr && answer.etag() == newest_->etag;
  if (!known && answer.unchanged()) {
    return absl::InternalError(
        absl::StrCat("the allocator says that bit map ", answer.etag(),
                     " hasn't changed, but it was never sent"));
  }
  if (!known) {
    auto loaded = LoadChecked(answer);
    if (!loaded.ok()) return loaded.status();
    newest_ = *std::move(loaded);
    request_.set_known_etag(newest_->etag);
    handoff_.Offer(newest_);
  }
  absl::MutexLock lock(&mutex_);
  state_.confirmed = environment_.now();
  if (!known) ++state_.received;
  return !known;
}

void BitMapSource::Keep(const v1::GetBitMapResponse& answer) {
  if (!disk_.has_value()) return;
  const absl::Status status =
      disk_->Store({.answer = answer, .received = state().confirmed});
  absl::MutexLock lock(&mutex_);
  state_.disk = status;
}

void BitMapSource::SetAllocator(const absl::Status& status, bool settled) {
  {
    absl::MutexLock lock(&mutex_);
    state_.allocator = status;
  }
  if (settled && !settled_.HasBeenNotified()) settled_.Notify();
}

}  // namespace ratequant::client

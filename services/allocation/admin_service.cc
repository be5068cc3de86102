#include "services/allocation/admin_service.h"

#include <cstdint>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/allocation/handler.h"
#include "services/allocation/timestamp.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::allocation {
namespace {

int64_t BytesOf(const std::string& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator file(folder, error), end;
       !error && file != end; file.increment(error)) {
    std::error_code gone;
    const auto size = file->file_size(gone);
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

grpc::ServerUnaryReactor* AdminServiceImpl::CreateBackup(
    grpc::CallbackServerContext* context,
    const v1::CreateBackupRequest* request, v1::Backup* response) {
  auto* reactor = context->DefaultReactor();
  HandleOn(path_, "ratequant.v1.AdminService.CreateBackup", context, reactor,
           request, response, [this](const auto& in, auto* out) {
             return Backup(in.backup(), out);
           });
  return reactor;
}

absl::Status AdminServiceImpl::Backup(const std::string& name,
                                      v1::Backup* response) {
  if (!IsModelId(name)) {
    return FieldError("INVALID_NAME", "backup",
                      absl::StrCat("'", name.substr(0, 200),
                                   "' isn't 1 to 128 letters, digits, '.', "
                                   "'_' and '-', the first a letter or digit"));
  }
  if (backup_dir_.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "BACKUPS_DISABLED",
                     "the allocator was started without --backup-dir");
  }
  std::error_code error;
  std::filesystem::create_directories(backup_dir_, error);
  const std::string folder =
      (std::filesystem::absolute(backup_dir_) / name).string();
  absl::Status made = store_->Backup(folder);
  if (!made.ok()) return made;
  response->set_backup(name);
  response->set_folder(folder);
  response->set_bytes(BytesOf(folder));
  spdlog::info("backed up to {}", folder);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetStatistics(
    grpc::CallbackServerContext* context,
    const v1::GetStatisticsRequest* request, v1::Statistics* response) {
  auto* reactor = context->DefaultReactor();
  const auto call = path_.gate->Admit(
      *context, "ratequant.v1.AdminService.GetStatistics", request);
  if (!call.ok()) {
    reactor->Finish(ToGrpcStatus(call.status()));
    return reactor;
  }
  *response = maps_->statistics();
  watches_->AddStatistics(response);
  response->set_version(RATEQUANT_VERSION);
  SetTime(absl::Now(), response->mutable_time());
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace ratequant::allocation

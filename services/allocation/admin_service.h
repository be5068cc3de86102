#ifndef RATEQUANT_SERVICES_ALLOCATION_ADMIN_SERVICE_H_
#define RATEQUANT_SERVICES_ALLOCATION_ADMIN_SERVICE_H_

#include <string>
#include <utility>

#include "ratequant/v1/admin_service.grpc.pb.h"
#include "services/allocation/bit_map_cache.h"
#include "services/allocation/handler.h"
#include "services/allocation/store/store.h"
#include "services/allocation/watch_hub.h"

namespace ratequant::allocation {

// ratequant.v1.AdminService. The arguments must outlive it.
class AdminServiceImpl : public v1::AdminService::CallbackService {
 public:
  // Backups go below `backup_dir`; empty: there are none.
  AdminServiceImpl(Store* store, const BitMapCache* maps,
                   const WatchHub* watches, CallPath path,
                   std::string backup_dir)
      : store_(store),
        maps_(maps),
        watches_(watches),
        path_(path),
        backup_dir_(std::move(backup_dir)) {}

  grpc::ServerUnaryReactor* CreateBackup(grpc::CallbackServerContext* context,
                                         const v1::CreateBackupRequest* request,
                                         v1::Backup* response) override;
  grpc::ServerUnaryReactor* GetStatistics(
      grpc::CallbackServerContext* context,
      const v1::GetStatisticsRequest* request,
      v1::Statistics* response) override;

 private:
  absl::Status Backup(const std::string& name, v1::Backup* response);

  Store* const store_;
  const BitMapCache* const maps_;
  const WatchHub* const watches_;
  const CallPath path_;
  const std::string backup_dir_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_ADMIN_SERVICE_H_

#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_OPTIONS_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_OPTIONS_H_

#include <vector>

#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "services/allocation/store/store.h"

namespace ratequant::allocation {

// RocksDB's own column family, which holds the schema version. The others are
// the tables'.
inline constexpr char kDefaultFamily[] = "default";

// How the database is opened. `env` replaces the file system unless null.
rocksdb::Options DatabaseOptions(rocksdb::Env* env);

// The default family, then every table's, with the options that fit what it
// holds. They share one block cache.
std::vector<rocksdb::ColumnFamilyDescriptor> Families(
    const rocksdb::Options& options);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_OPTIONS_H_

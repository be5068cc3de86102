#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_METRICS_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_METRICS_H_

#include <vector>

#include "rocksdb/db.h"
#include "services/common/metrics.h"

namespace ratequant::allocation {

// Samples of RocksDB's own properties and tickers: sizes by column family
// (label "table"), memory, background work and its errors, stalls, and what
// passed through the block cache and the disk.
void AddRocksDbSamples(
    rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& families,
    MetricSamples* out);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_ROCKSDB_METRICS_H_

#include "services/allocation/store/rocksdb_metrics.h"

#include <cstdint>
#include <string>

#include "rocksdb/statistics.h"

namespace ratequant::allocation {
namespace {

using Properties = rocksdb::DB::Properties;

struct Property {
  const std::string& property;
  const char* name;
  const char* help;
};

double Value(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family,
             const std::string& property) {
  uint64_t value = 0;
  db->GetIntProperty(family, property, &value);
  return static_cast<double>(value);
}

// Of each column family.
void AddTableSamples(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family,
                     MetricSamples* out) {
  const Property properties[] = {
      {Properties::kEstimateNumKeys, "ratequant_rocksdb_keys", "Rows, about"},
      {Properties::kTotalSstFilesSize, "ratequant_rocksdb_file_bytes",
       "Bytes of all files"},
      {Properties::kEstimateLiveDataSize, "ratequant_rocksdb_live_bytes",
       "Bytes of what isn't deleted or replaced, about"},
      {Properties::kCurSizeAllMemTables, "ratequant_rocksdb_memtable_bytes",
       "Bytes written and not yet in a file"},
      {Properties::kEstimatePendingCompactionBytes,
       "ratequant_rocksdb_pending_compaction_bytes",
       "Bytes that compactions are still to rewrite"},
  };
  for (const Property& property : properties) {
    out->Gauge(property.name, property.help,
               Value(db, family, property.property),
               {{"table", family->GetName()}});
  }
}

// Of the whole database; the block cache is shared by all families.
void AddDatabaseSamples(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family,
                        MetricSamples* out) {
  const Property properties[] = {
      {Properties::kBlockCacheUsage, "ratequant_rocksdb_block_cache_bytes",
       "Bytes in the block cache"},
      {Properties::kBlockCacheCapacity,
       "ratequant_rocksdb_block_cache_capacity_bytes",
       "Most bytes in the block cache"},
      {Properties::kNumRunningCompactions,
       "ratequant_rocksdb_running_compactions", "Compactions that run"},
      {Properties::kNumRunningFlushes, "ratequant_rocksdb_running_flushes",
       "Flushes that run"},
      {Properties::kIsWriteStopped, "ratequant_rocksdb_writes_stopped",
       "1 while no write is taken"},
  };
  for (const Property& property : properties) {
    out->Gauge(property.name, property.help,
               Value(db, family, property.property));
  }
  out->Counter("ratequant_rocksdb_background_errors_total",
               "Errors of flushes and compactions",
               Value(db, family, Properties::kBackgroundErrors));
}

void AddTickers(const rocksdb::Statistics& statistics, MetricSamples* out) {
  const struct {
    rocksdb::Tickers ticker;
    const char* name;
    const char* help;
  } tickers[] = {
      {rocksdb::BLOCK_CACHE_HIT, "ratequant_rocksdb_block_cache_hits_total",
       "Blocks found in the block cache"},
      {rocksdb::BLOCK_CACHE_MISS, "ratequant_rocksdb_block_cache_misses_total",
       "Blocks read from files"},
      {rocksdb::BYTES_READ, "ratequant_rocksdb_read_bytes_total",
       "Bytes of rows read by key"},
      {rocksdb::BYTES_WRITTEN, "ratequant_rocksdb_written_bytes_total",
       "Bytes of rows written"},
      {rocksdb::WAL_FILE_SYNCED, "ratequant_rocksdb_log_syncs_total",
       "Times the log was synced to disk"},
      {rocksdb::WAL_FILE_BYTES, "ratequant_rocksdb_log_bytes_total",
       "Bytes written to the log"},
      {rocksdb::COMPACT_WRITE_BYTES,
       "ratequant_rocksdb_compaction_written_bytes_total",
       "Bytes written by compactions"},
  };
  for (const auto& [ticker, name, help] : tickers) {
    out->Counter(name, help,
                 static_cast<double>(statistics.getTickerCount(ticker)));
  }
  out->Counter("ratequant_rocksdb_stall_seconds_total",
               "Time that writes were held up",
               1e-6 * static_cast<double>(
                          statistics.getTickerCount(rocksdb::STALL_MICROS)));
}

}  // namespace

void AddRocksDbSamples(
    rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& families,
    MetricSamples* out) {
  for (rocksdb::ColumnFamilyHandle* family : families) {
    AddTableSamples(db, family, out);
  }
  AddDatabaseSamples(db, families[0], out);
  const auto statistics = db->GetDBOptions().statistics;
  if (statistics != nullptr) AddTickers(*statistics, out);
}

}  // namespace ratequant::allocation

#include "services/allocation/store/rocksdb_options.h"

#include <cstddef>
#include <memory>
#include <string>

#include "rocksdb/cache.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/statistics.h"
#include "rocksdb/table.h"

namespace ratequant::allocation {
namespace {

// Whatever the store has read lately, compressed blocks unpacked. Answers in
// use are kept parsed above the store, so that little passes through here.
constexpr size_t kBlockCacheBytes = 32 << 20;

// 1% of lookups of a key that isn't there read a block for nothing.
constexpr double kBloomBitsPerKey = 10;

}  // namespace

rocksdb::Options DatabaseOptions(rocksdb::Env* env) {
  rocksdb::Options options;
  if (env != nullptr) options.env = env;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  // Damage is reported where it is found instead of being read around.
  options.paranoid_checks = true;
  // Opening stops at a damaged record in the middle of the log, but not at an
  // unfinished one at its end, which is what a crash leaves.
  options.wal_recovery_mode =
      rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  // Writes are few. Two memtables a family, 32 MiB for all of them, and a log
  // that is never longer than what a restart replays in a fraction of a second.
  options.write_buffer_size = 8 << 20;
  options.max_write_buffer_number = 2;
  options.db_write_buffer_size = 32 << 20;
  options.max_total_wal_size = 32 << 20;
  options.max_open_files = 256;
  options.max_background_jobs = 2;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  options.info_log_level = rocksdb::WARN_LEVEL;
  // For metrics. Histograms and timers would cost time.
  options.statistics = rocksdb::CreateDBStatistics();
  options.statistics->set_stats_level(rocksdb::kExceptHistogramOrTimers);
  // What it writes to its own log, and keeps in memory for that.
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families(
    const rocksdb::Options& options) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  // Filters and indexes count against the cache: memory stays bounded however
  // large the store grows. Those of the newest files, which most lookups ask,
  // stay in it.
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.format_version = 5;
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back(kDefaultFamily, options);
  for (const std::string name : kTableNames) {
    rocksdb::ColumnFamilyOptions family(options);
    rocksdb::BlockBasedTableOptions format = table;
    // Costs nothing beside a disk read.
    family.compression = rocksdb::kLZ4Compression;
    if (name == "calibrations") {
      // Megabytes each, written once, read seldom and whole: large blocks, and
      // once they have settled the denser compression.
      format.block_size = 64 << 10;
      family.bottommost_compression = rocksdb::kZSTD;
    } else if (name == "bit_maps") {
      // Asked one at a time, most often for one that isn't there yet.
      format.block_size = 8 << 10;
      format.filter_policy.reset(
          rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
    } else if (name == "bit_map_index") {
      // Rows of a hundred bytes, looked up by key when a map is stored.
      format.block_size = 4 << 10;
      format.filter_policy.reset(
          rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
    }
    // Models are read once, at start; evaluations by prefix: filters of whole
    // keys would answer nothing.
    family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(format));
    families.emplace_back(name, family);
  }
  return families;
}

}  // namespace ratequant::allocation

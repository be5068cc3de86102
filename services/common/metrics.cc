#include "services/common/metrics.h"

#include <dirent.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <utility>

#include "google/protobuf/stubs/common.h"
#include "prometheus/text_serializer.h"

namespace ratequant {
namespace {

double OpenFiles() {
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int count = -3;  // ".", ".." and the folder's own
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  double size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * time.tv_usec;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

const std::vector<double>& DurationBuckets() {
  static const auto& buckets = *new std::vector<double>{
      0,     0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002,
      0.003, 0.004,   0.005,   0.006,  0.008,  0.01,   0.013,  0.016, 0.02,
      0.025, 0.03,    0.04,    0.05,   0.065,  0.08,   0.1,    0.13,  0.16,
      0.2,   0.25,    0.3,     0.4,    0.5,    0.65,   0.8,    1,     2,
      5,     10,      20,      50,     100};
  return buckets;
}

void MetricSamples::Gauge(const std::string& name, const std::string& help,
                          double value, const MetricLabels& labels) {
  Add(prometheus::MetricType::Gauge, name, help, value, labels);
}

void MetricSamples::Counter(const std::string& name, const std::string& help,
                            double value, const MetricLabels& labels) {
  Add(prometheus::MetricType::Counter, name, help, value, labels);
}

void MetricSamples::Add(prometheus::MetricType type, const std::string& name,
                        const std::string& help, double value,
                        const MetricLabels& labels) {
  prometheus::MetricFamily& family = families_[name];
  family.name = name;
  family.help = help;
  family.type = type;
  prometheus::ClientMetric metric;
  for (const auto& [key, text] : labels) metric.label.push_back({key, text});
  (type == prometheus::MetricType::Gauge ? metric.gauge.value
                                         : metric.counter.value) = value;
  family.metric.push_back(std::move(metric));
}

std::vector<prometheus::MetricFamily> MetricSamples::Take() {
  std::vector<prometheus::MetricFamily> families;
  for (auto& [name, family] : families_) families.push_back(std::move(family));
  families_.clear();
  return families;
}

Metrics& Metrics::Get() {
  static auto& metrics = *new Metrics();
  return metrics;
}

prometheus::Counter& Metrics::Counter(const std::string& name,
                                      const std::string& help,
                                      const MetricLabels& labels) {
  return prometheus::BuildCounter()
      .Name(name)
      .Help(help)
      .Register(registry_)
      .Add(labels);
}

prometheus::Histogram& Metrics::Durations(const std::string& name,
                                          const std::string& help,
                                          const MetricLabels& labels) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(registry_)
      .Add(labels, DurationBuckets());
}

std::shared_ptr<void> Metrics::Sample(Sampler sample) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int number = next_sampler_++;
  samplers_[number] = std::move(sample);
  return std::shared_ptr<void>(nullptr, [this, number](void*) {
    const std::lock_guard<std::mutex> lock(mutex_);
    samplers_.erase(number);
  });
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  MetricSamples samples;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [number, sample] : samplers_) sample(&samples);
  }
  for (auto& family : samples.Take()) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

void SampleProcess(const std::string& program, MetricSamples* out) {
  static const double start = static_cast<double>(std::time(nullptr));
  out->Gauge("process_start_time_seconds",
             "When the process started, seconds since 1970", start);
  out->Gauge("process_resident_memory_bytes", "Memory in use", ResidentBytes());
  out->Counter("process_cpu_seconds_total", "CPU time used", CpuSeconds());
  out->Gauge("process_open_fds", "Open files", OpenFiles());
  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  out->Gauge("process_max_fds", "Most open files",
             static_cast<double>(files.rlim_cur));
  out->Gauge("ratequant_build_info", "Always 1; what this is, in its labels", 1,
             {{"program", program},
              {"version", RATEQUANT_VERSION},
              {"grpc", grpc::Version()},
              {"protobuf", google::protobuf::internal::VersionString(
                               GOOGLE_PROTOBUF_VERSION)}});
}

void SampleDisk(const std::string& name, const std::string& folder,
                MetricSamples* out) {
  struct statvfs disk = {};
  if (statvfs(folder.c_str(), &disk) != 0) return;
  const double block = static_cast<double>(disk.f_frsize);
  out->Gauge("ratequant_disk_free_bytes",
             "Room left for the service in the folder's file system",
             block * static_cast<double>(disk.f_bavail), {{"folder", name}});
  out->Gauge("ratequant_disk_size_bytes", "Size of the folder's file system",
             block * static_cast<double>(disk.f_blocks), {{"folder", name}});
}

}  // namespace ratequant

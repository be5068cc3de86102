#ifndef RATEQUANT_SERVICES_COMMON_METRICS_H_
#define RATEQUANT_SERVICES_COMMON_METRICS_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"

namespace ratequant {

using MetricLabels = std::map<std::string, std::string>;

// Upper bounds of duration histograms, in seconds: those of gRPC's
// OpenTelemetry plugin.
const std::vector<double>& DurationBuckets();

// Values that are read when somebody asks, of things that count for themselves.
class MetricSamples {
 public:
  // A value now; one of the same name joins those before it.
  void Gauge(const std::string& name, const std::string& help, double value,
             const MetricLabels& labels = {});

  // A value that only grows while the process lives; `name` ends in "_total".
  void Counter(const std::string& name, const std::string& help, double value,
               const MetricLabels& labels = {});

  std::vector<prometheus::MetricFamily> Take();

 private:
  void Add(prometheus::MetricType type, const std::string& name,
           const std::string& help, double value, const MetricLabels& labels);

  std::map<std::string, prometheus::MetricFamily> families_;
};

// The metrics of this process, in Prometheus' form. Thread-safe.
class Metrics {
 public:
  static Metrics& Get();

  // The metric of that name and those labels, made when there is none; lives as
  // long as the process. Look it up once, not for every count.
  prometheus::Counter& Counter(const std::string& name, const std::string& help,
                               const MetricLabels& labels = {});
  prometheus::Histogram& Durations(const std::string& name,
                                   const std::string& help,
                                   const MetricLabels& labels = {});

  // Calls `sample` whenever the metrics are read, until the result is
  // destroyed, which waits for a call that runs.
  using Sampler = std::function<void(MetricSamples*)>;
  [[nodiscard]] std::shared_ptr<void> Sample(Sampler sample);

  // All metrics in Prometheus' text format.
  std::string Text() const;

 private:
  Metrics() = default;

  prometheus::Registry registry_;
  mutable std::mutex mutex_;
  std::map<int, Sampler> samplers_;  // guarded by mutex_
  int next_sampler_ = 0;             // guarded by mutex_
};

// Samples of the process itself (CPU, memory, files) and of what was built.
void SampleProcess(const std::string& program, MetricSamples* out);

// Samples of the file system that holds `folder`, under the label
// folder=`name`.
void SampleDisk(const std::string& name, const std::string& folder,
                MetricSamples* out);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_METRICS_H_

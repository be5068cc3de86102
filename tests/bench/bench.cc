#include "tests/bench/bench.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "nlohmann/json.hpp"

namespace ratequant::bench {
namespace {

// As the process was started: PinThread narrows what its threads see.
const cpu_set_t kAllowed = [] {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return set;
}();

}  // namespace

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      options.quick = true;
    } else {
      std::cerr << argv[0] << ": unknown option '" << argv[i]
                << "'; --quick is the only one\n";
      std::exit(2);
    }
  }
  return options;
}

void Report(const Row& row) {
  nlohmann::ordered_json json = {{"row", row.row},   {"measured", row.measured},
                                 {"unit", row.unit}, {"against", row.against},
                                 {"goal", row.goal}, {"met", nullptr},
                                 {"note", row.note}};
  if (row.met.has_value()) json["met"] = *row.met;
  std::cout << json.dump() << std::endl;
}

void PinThread(int n) {
  const int count = CPU_COUNT(&kAllowed);
  if (count == 0) return;
  n %= count;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &kAllowed) || n-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
    return;
  }
}

double Quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const double place = fraction * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] +
         (place - std::floor(place)) * (values[above] - values[below]);
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

double MedianSeconds(int runs, const std::function<void()>& work) {
  work();
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) seconds.push_back(Seconds(work));
  return Quantile(std::move(seconds), 0.5);
}

}  // namespace ratequant::bench

#ifndef RATEQUANT_TESTS_BENCH_BENCH_H_
#define RATEQUANT_TESTS_BENCH_BENCH_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ratequant::bench {

// What a bench is told.
struct Options {
  bool quick = false;  // --quick: seconds instead of minutes, smaller sizes
};

// Reads a bench's command line; ends the process when it isn't understood.
Options ParseOptions(int argc, char** argv);

// One line of the table tests/bench/run prints.
struct Row {
  std::string row;  // what is measured, a name in tests/bench/rows.py
  double measured = 0;
  std::string unit;     // of `measured`: "x" for a ratio
  std::string against;  // what a ratio is to, or where a time was taken
  std::string goal;
  std::optional<bool> met;  // unset: sizes too small to say, or no goal
  std::string note;
};

// Prints a row as a line of JSON.
void Report(const Row& row);

// Keeps the calling thread, and threads that it starts, on one CPU: the n-th of
// those the process may use, counted round.
void PinThread(int n);

// The value below which `fraction` of the values lie; 0.5 is the median. At
// least one value.
double Quantile(std::vector<double> values, double fraction);

// Seconds that `work` takes.
double Seconds(const std::function<void()>& work);

// Median seconds of `runs` calls, after one that doesn't count.
double MedianSeconds(int runs, const std::function<void()>& work);

}  // namespace ratequant::bench

#endif  // RATEQUANT_TESTS_BENCH_BENCH_H_

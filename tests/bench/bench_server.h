#ifndef RATEQUANT_TESTS_BENCH_BENCH_SERVER_H_
#define RATEQUANT_TESTS_BENCH_BENCH_SERVER_H_

#include <sys/types.h>

#include <string>

namespace ratequant::bench {

// The allocator's services over a store in memory, and EmptyService beside
// them, in a process of its own that is pinned to the first CPU. Make it before
// anything of gRPC is used. Ends with the object.
class BenchServer {
 public:
  BenchServer();
  ~BenchServer();
  BenchServer(const BenchServer&) = delete;
  BenchServer& operator=(const BenchServer&) = delete;

  // "127.0.0.1:port"; "" when it didn't start.
  const std::string& address() const { return address_; }

  // CPU time it has used so far.
  double CpuSeconds() const;

 private:
  pid_t pid_ = -1;
  std::string address_;
};

}  // namespace ratequant::bench

#endif  // RATEQUANT_TESTS_BENCH_BENCH_SERVER_H_

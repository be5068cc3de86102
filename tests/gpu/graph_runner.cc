#include "tests/gpu/graph_runner.h"

namespace ratequant::kv::cuda {
namespace {

// A stream with what is captured on it.
class Capture {
 public:
  ~Capture() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  Status Record(const std::function<Status(cudaStream_t)>& launch) {
    Status status = Check(cudaStreamCreate(&stream_));
    if (!status.ok()) return status;
    status = Check(
        cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    if (!status.ok()) return status;
    const Status launched = launch(stream_);
    status = Check(cudaStreamEndCapture(stream_, &graph_));
    if (!launched.ok()) return launched;
    if (!status.ok()) return status;
    return Check(cudaGraphInstantiate(&executable_, graph_, 0));
  }

  Status Replay() {
    Status status = Check(cudaGraphLaunch(executable_, stream_));
    return status.ok() ? Check(cudaStreamSynchronize(stream_)) : status;
  }

 private:
  static Status Check(cudaError_t error) {
    return StatusOfCuda(error, "a CUDA graph");
  }

  cudaStream_t stream_ = nullptr;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

Status GraphRunner::Run(const std::function<Status(cudaStream_t)>& launch,
                        const std::function<Status()>& write_steps) const {
  Capture capture;
  Status status = capture.Record(launch);
  if (status.ok()) status = write_steps();
  return status.ok() ? capture.Replay() : status;
}

}  // namespace ratequant::kv::cuda

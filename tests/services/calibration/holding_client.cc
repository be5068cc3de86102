// A client that takes the worker at the given address and holds it, to be
// killed: says "holding" once its call runs.

#include <iostream>

#include "tests/services/calibration/worker_fixture.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto stub = ratequant::calibration::ConnectTo(argv[1]);
  grpc::ClientContext context;
  auto stream = stub->CalibrateStream(&context);
  const ratequant::calibration::TestCapture capture;
  stream->Write(capture.Chunks("models/tiny")[0]);
  ratequant::v1::CalibrateProgress progress;
  while (stream->Read(&progress)) std::cout << "holding" << std::endl;
  return 1;
}

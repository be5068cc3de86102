// What the launchers refuse before anything runs, and machines without a GPU.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/decode.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/format_table.h"

namespace ratequant::kv::cuda {
namespace {

using ::testing::HasSubstr;

Status MakeTable(int head_dim, int page_tokens, const FormatSpec& spec,
                 FormatTable* table) {
  return FormatTable::Create(head_dim, page_tokens, {spec}, nullptr, table);
}

FormatSpec Spec(QuantizerKind kind, int width = 4) {
  FormatSpec spec;
  spec.quantizer.kind = kind;
  spec.width = width;
  return spec;
}

template <class Launch>
class Launchers : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(MakeTable(64, 32, Spec(QuantizerKind::kKivi), &formats_).ok());
    launch_.formats = &formats_;
    launch_.tasks = &task_;
    launch_.num_tasks = 1;
    launch_.max_count = 32;
    launch_.row_stride = 64;
    launch_.fault = &fault_;
  }

  Status Run() {
    if constexpr (std::is_same_v<Launch, EncodeLaunch>) {
      return LaunchEncode(launch_, nullptr);
    } else {
      return LaunchDecode(launch_, nullptr);
    }
  }

  void ExpectRefused(const std::string& text) {
    const Status status = Run();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(text));
  }

  FormatTable formats_;
  std::remove_const_t<std::remove_pointer_t<decltype(Launch::tasks)>> task_;
  FaultWord fault_ = kNoFault;
  Launch launch_;
};

using LaunchTypes = ::testing::Types<EncodeLaunch, DecodeLaunch>;
TYPED_TEST_SUITE(Launchers, LaunchTypes);

TYPED_TEST(Launchers, TakeATaskWithoutRowsAndALaunchWithoutTasks) {
  EXPECT_TRUE(this->Run().ok());
  EXPECT_EQ(this->fault_, kNoFault);
  this->launch_.num_tasks = 0;
  this->launch_.tasks = nullptr;
  EXPECT_TRUE(this->Run().ok());
}

TYPED_TEST(Launchers, RefuseALaunchWithoutFormats) {
  this->launch_.formats = nullptr;
  this->ExpectRefused("no format table");
  FormatTable empty;
  this->launch_.formats = &empty;
  this->ExpectRefused("no format table");
}

TYPED_TEST(Launchers, RefuseNullPointers) {
  this->launch_.tasks = nullptr;
  this->ExpectRefused("tasks are null");
  this->launch_.tasks = &this->task_;
  this->launch_.fault = nullptr;
  this->ExpectRefused("fault word is null");
}

TYPED_TEST(Launchers, RefuseNumbersThatAreNotSupported) {
  this->launch_.num_tasks = -1;
  this->ExpectRefused("num_tasks -1");
  this->launch_.num_tasks = 1;
  this->launch_.max_count = 33;
  this->ExpectRefused("max_count 33 isn't supported; supported: 0 to page_t");
  this->launch_.max_count = -1;
  this->ExpectRefused("max_count -1");
  this->launch_.max_count = 32;
  this->launch_.dtype = static_cast<DType>(7);
  this->ExpectRefused("dtype 7 isn't supported; supported: 0 (fp32)");
}

TYPED_TEST(Launchers, RefuseAStrideThatVectorsCantRead) {
  this->launch_.row_stride = 56;
  this->ExpectRefused("row_stride 56");
  this->launch_.row_stride = 68;
  this->ExpectRefused("row_stride 68 isn't supported; supported: head_dim, 64");
  this->launch_.dtype = DType::kFloat32;
  EXPECT_TRUE(this->Run().ok());
}

TEST(FormatTable, NamesTheFormatThatIsNotSupported) {
  FormatTable table;
  const Status status = FormatTable::Create(
      80, 32, {Spec(QuantizerKind::kRtn), Spec(QuantizerKind::kTurboquant)},
      nullptr, &table);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              HasSubstr("format 1: head_dim 80 isn't supported; supported: "
                        "powers of two from 8 to 512"));
  EXPECT_EQ(table.size(), 0);
}

TEST(FormatTable, RefusesWhatTheCodecRefuses) {
  FormatTable table;
  const auto expect_refused = [&](int head_dim, int page_tokens,
                                  const FormatSpec& spec,
                                  const std::string& text) {
    const Status status = MakeTable(head_dim, page_tokens, spec, &table);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr(text));
  };
  const FormatSpec rtn = Spec(QuantizerKind::kRtn);
  expect_refused(60, 32, rtn, "head_dim 60");
  expect_refused(520, 32, rtn, "head_dim 520");
  expect_refused(0, 32, rtn, "head_dim 0");
  expect_refused(64, 48, rtn, "page_tokens 48");
  expect_refused(64, 8, rtn, "page_tokens 8");
  expect_refused(64, 256, rtn, "page_tokens 256");
  for (const int width : {-1, 0, 9, 15, 17}) {
    expect_refused(64, 32, Spec(QuantizerKind::kRtn, width), "width ");
  }
  expect_refused(64, 32, Spec(static_cast<QuantizerKind>(9)),
                 "quantizer kind 9");
  FormatSpec kivi = Spec(QuantizerKind::kKivi);
  expect_refused(64, 16, kivi, "page_tokens 16");
  expect_refused(72, 32, kivi, "head_dim 72");
  kivi.quantizer.group_size = 48;
  expect_refused(96, 32, kivi, "group_size 48");
  for (const QuantizerKind kind :
       {QuantizerKind::kTurboquant, QuantizerKind::kTcq}) {
    FormatSpec scaled = Spec(kind);
    scaled.quantizer.value_scale = static_cast<RowScale>(3);
    expect_refused(64, 32, scaled, "row scale 3");
    expect_refused(96, 32, Spec(kind), "head_dim 96");
  }
  FormatSpec tensor = rtn;
  tensor.tensor = static_cast<Tensor>(2);
  expect_refused(64, 32, tensor, "tensor 2");
  EXPECT_EQ(FormatTable::Create(64, 32, {}, nullptr, &table).code(),
            StatusCode::kInvalidArgument);
}

TEST(CheckDevice, SaysWhatTheRuntimeFound) {
  EXPECT_TRUE(CheckDevice().ok());
  const ::cuda_on_cpu::ScopedDeviceCount none(0);
  const Status status = CheckDevice();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("no CUDA-capable device"));
}

}  // namespace
}  // namespace ratequant::kv::cuda

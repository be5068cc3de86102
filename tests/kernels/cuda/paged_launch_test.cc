// What the paged launchers refuse before anything runs.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/page_ops.h"
#include "kernels/cuda/paged_append.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/paged_gather.h"

namespace ratequant::kv::cuda {
namespace {

using ::testing::HasSubstr;

// Launches that would be right, of a layer without content.
class PagedLaunch : public ::testing::Test {
 protected:
  void SetUp() override { MakeTable(64); }

  void MakeTable(int head_dim) {
    FormatSpec key;
    key.quantizer.kind = QuantizerKind::kRtn;
    key.width = 4;
    FormatSpec value = key;
    value.tensor = Tensor::kValue;
    ASSERT_TRUE(
        FormatTable::Create(head_dim, 32, {key, value}, nullptr, &formats_)
            .ok());
    layer_.memory.pages = layer_.memory.sidecars = memory_;
    layer_.memory.block_table = numbers_;
    layer_.memory.groups = groups_;
    layer_.memory.kv_heads = 1;
    layer_.memory.head_dim = head_dim;
    layer_.memory.page_tokens = 32;
    layer_.formats = numbers_;
  }

  AppendLaunch Append() {
    AppendLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.steps = &step_;
    launch.num_steps = 1;
    launch.max_tokens = 1;
    launch.keys = launch.values = Heads();
    launch.fault = &fault_;
    return launch;
  }
  GatherLaunch Gather() {
    GatherLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.keys = launch.values = {memory_, DType::kFloat16, 64, 64};
    return launch;
  }
  AttentionLaunch Attention() {
    AttentionLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.steps = &step_;
    launch.num_steps = 1;
    launch.max_queries = 1;
    launch.params = {.query_heads = 1, .softmax_scale = 1.0f};
    launch.queries = Heads();
    launch.out = {memory_, DType::kFloat16, Stride(), Stride()};
    launch.num_ctas = 1;
    launch.workspace = workspace_;
    launch.workspace_bytes = sizeof(workspace_);
    return launch;
  }

  static void ExpectRefused(const Status& status, const std::string& text) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr(text));
  }

  int64_t Stride() const { return layer_.memory.head_dim; }
  ConstHeads Heads() { return {memory_, DType::kFloat16, Stride(), Stride()}; }

  alignas(16) uint8_t memory_[2048] = {};
  alignas(16) uint8_t workspace_[16384];
  int32_t numbers_[2] = {0, 1};
  GroupPlace groups_[2];
  SequenceStep step_;
  FaultWord fault_ = kNoFault;
  FormatTable formats_;
  PagedLayer layer_;
};

TEST_F(PagedLaunch, TakesAStepThatIsNotUsed) {
  EXPECT_TRUE(LaunchAppend(Append(), nullptr).ok());
  EXPECT_TRUE(LaunchGather(Gather(), nullptr).ok());
  EXPECT_TRUE(LaunchAttention(Attention(), nullptr).ok());
  EXPECT_EQ(fault_, kNoFault);
}

TEST_F(PagedLaunch, RefusesALayerThatLacksSomething) {
  AppendLaunch launch = Append();
  launch.layer.memory.pages = nullptr;
  ExpectRefused(LaunchAppend(launch, nullptr), "pages or sidecars are null");
  launch = Append();
  launch.layer.memory.sidecars = memory_ + 8;
  ExpectRefused(LaunchAppend(launch, nullptr), "not a multiple of 16");
  launch = Append();
  launch.layer.formats = nullptr;
  ExpectRefused(LaunchAppend(launch, nullptr), "formats are null");
  launch = Append();
  launch.layer.memory.page_tokens = 64;
  ExpectRefused(LaunchAppend(launch, nullptr),
                "the layer has head_dim 64 and 64 tokens a page");
  launch = Append();
  launch.layer.memory.kv_heads = 0;
  ExpectRefused(LaunchAppend(launch, nullptr), "kv_heads 0");
  launch = Append();
  launch.formats = nullptr;
  ExpectRefused(LaunchAppend(launch, nullptr), "no format table");
}

TEST_F(PagedLaunch, RefusesTensorsThatVectorsCannotRead) {
  AppendLaunch launch = Append();
  launch.keys.data = memory_ + 2;
  ExpectRefused(LaunchAppend(launch, nullptr), "keys: data is null or not");
  launch = Append();
  launch.values.row_stride = 68;
  ExpectRefused(LaunchAppend(launch, nullptr), "values: row_stride 68");
  launch = Append();
  launch.values.head_stride = 56;
  ExpectRefused(LaunchAppend(launch, nullptr), "values: head_stride 56");
  launch = Append();
  launch.values.dtype = DType::kBFloat16;
  ExpectRefused(LaunchAppend(launch, nullptr), "keys have dtype 1, values 2");
  launch = Append();
  launch.keys.dtype = launch.values.dtype = static_cast<DType>(7);
  ExpectRefused(LaunchAppend(launch, nullptr), "dtype 7 isn't supported");
  AttentionLaunch attention = Attention();
  attention.out.data = nullptr;
  ExpectRefused(LaunchAttention(attention, nullptr), "out: data is null");
}

TEST_F(PagedLaunch, RefusesLimitsOutOfRange) {
  AppendLaunch launch = Append();
  launch.max_tokens = 0;
  ExpectRefused(LaunchAppend(launch, nullptr), "max_tokens 0");
  launch.max_tokens = kMaxStepTokens + 1;
  ExpectRefused(LaunchAppend(launch, nullptr), "supported: 1 to 1048576");
  launch = Append();
  launch.num_steps = -1;
  ExpectRefused(LaunchAppend(launch, nullptr), "num_steps -1");
  launch = Append();
  launch.fault = nullptr;
  ExpectRefused(LaunchAppend(launch, nullptr), "fault word is null");
  AttentionLaunch attention = Attention();
  attention.max_queries = 9;
  ExpectRefused(LaunchAttention(attention, nullptr),
                "max_queries 9 isn't supported; supported: 1 to 8");
  attention = Attention();
  attention.num_ctas = 0;
  ExpectRefused(LaunchAttention(attention, nullptr), "num_ctas 0");
  attention = Attention();
  attention.workspace_bytes = 64;
  ExpectRefused(LaunchAttention(attention, nullptr), "the workspace has 64");
  attention = Attention();
  attention.steps = nullptr;
  ExpectRefused(LaunchAttention(attention, nullptr), "steps are null");
}

TEST_F(PagedLaunch, RefusesPositionsOutsideTheSequence) {
  GatherLaunch launch = Gather();
  launch.state.begin = 10;
  for (const auto& [first, count] :
       {std::pair{-1, 2}, {0, 11}, {8, 3}, {3, -1}}) {
    launch.first = first;
    launch.count = count;
    ExpectRefused(LaunchGather(launch, nullptr),
                  "among the 10 of the sequence");
  }
}

TEST_F(PagedLaunch, RefusesAttentionThatIsNotDefined) {
  AttentionLaunch launch = Attention();
  launch.params.query_heads = 0;
  ExpectRefused(LaunchAttention(launch, nullptr), "query_heads 0");
  launch = Attention();
  launch.params.softmax_scale = 0.0f;
  ExpectRefused(LaunchAttention(launch, nullptr), "softmax_scale 0");
  launch = Attention();
  launch.params.soft_cap = -1.0f;
  ExpectRefused(LaunchAttention(launch, nullptr), "soft_cap -1");
  launch = Attention();
  launch.params.sliding_window = -5;
  ExpectRefused(LaunchAttention(launch, nullptr), "sliding_window -5");
}

TEST_F(PagedLaunch, NamesTheHeadDimsThatAttentionHas) {
  MakeTable(192);
  ExpectRefused(
      LaunchAttention(Attention(), nullptr),
      "head_dim 192 isn't supported; supported: 64, 80, 96, 128, 256");
}

TEST(EditLaunches, RefuseNullPointersAndNegativeCounts) {
  EditLaunch launch;
  EXPECT_TRUE(LaunchEdits(launch, nullptr).ok());
  launch.num_edits = 1;
  launch.num_pools = -1;
  EXPECT_THAT(LaunchEdits(launch, nullptr).message(),
              HasSubstr("num_pools -1"));
  launch.num_pools = 1;
  EXPECT_THAT(LaunchEdits(launch, nullptr).message(),
              HasSubstr("edits or pools are null"));
}

}  // namespace
}  // namespace ratequant::kv::cuda

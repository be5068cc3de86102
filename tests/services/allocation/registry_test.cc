#include "services/allocation/registry.h"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/allocation/store/memory_store.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/canonical.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::MakeCalibration;
using ::ratequant::testing::TempDir;
using ::testing::ElementsAre;

// Over both stores: the registry doesn't know which one it has.
class RegistryTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { Restart(); }

  // What a new process would see: the store's content and nothing else.
  void Restart() {
    registry_.reset();
    if (store_ == nullptr || GetParam()) {
      store_.reset();
      if (GetParam()) {
        auto opened = RocksDbStore::Open(folder_.path());
        ASSERT_TRUE(opened.ok()) << opened.status();
        store_ = *std::move(opened);
      } else {
        store_ = std::make_unique<MemoryStore>();
      }
    }
    auto registry = Registry::Open(
        store_.get(),
        {.bit_map_bytes = 1 << 20, .clock = [this] { return now_; }});
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
  }

  std::shared_ptr<const v1::Calibration> Create(const std::string& model,
                                                uint32_t seed) {
    auto created = registry_->Create(
        model, MakeCalibration({.layers = 2, .kv_heads = 1, .seed = seed}));
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? *created : nullptr;
  }

  absl::StatusOr<v1::ListCalibrationsResponse> List(
      const std::string& model, int page_size, const std::string& page_token) {
    v1::ListCalibrationsRequest request;
    request.set_parent(ModelName(model));
    request.set_page_size(page_size);
    request.set_page_token(page_token);
    return registry_->ListCalibrations(model, request);
  }

  absl::StatusOr<v1::ListModelsResponse> ListModels(
      int page_size, const std::string& page_token) {
    v1::ListModelsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(page_token);
    return registry_->ListModels(request);
  }

  // A stored map's stand-in: named, and told from others by its bits.
  static v1::BitMap MakeMap(char id, double code_bits) {
    v1::BitMap map;
    map.set_name(BitMapName("m", std::string(64, id)));
    map.set_code_bits(code_bits);
    return map;
  }

  static ChildName NameOf(const v1::Calibration& calibration) {
    return *ParseCalibrationName(calibration.name(), "name");
  }

  TempDir folder_;
  absl::Time now_ = absl::FromUnixSeconds(1700000000);
  std::unique_ptr<Store> store_;
  std::unique_ptr<Registry> registry_;
};

TEST_P(RegistryTest, ACalibrationIsNamedByItsContent) {
  v1::Calibration content = MakeCalibration({.layers = 2, .seed = 3});
  const auto stored = registry_->Create("m", content);
  ASSERT_TRUE(stored.ok()) << stored.status();
  content.set_name("models/m");
  EXPECT_EQ((*stored)->name(), CalibrationName("m", *CanonicalDigest(content)));
  EXPECT_EQ((*stored)->create_time().seconds(), 1700000000);
  // As the full name, with a create_time of its own.
  content.set_name((*stored)->name());
  content.mutable_create_time()->set_seconds(5);
  now_ += absl::Hours(1);
  const auto again = registry_->Create("m", content);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->SerializeAsString(), (*stored)->SerializeAsString());
  EXPECT_EQ(registry_->GetModel("m")->calibration_count(), 1u);
}

TEST_P(RegistryTest, ANameThatIsNotTheContentsIsRefused) {
  v1::Calibration content = MakeCalibration();
  content.set_name(CalibrationName("m", std::string(64, '0')));
  const absl::Status status = registry_->Create("m", content).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "DIGEST_MISMATCH");
  content.set_name("models/other");
  EXPECT_EQ(ErrorReason(registry_->Create("m", content).status()),
            "DIGEST_MISMATCH");
}

TEST_P(RegistryTest, UnknownFieldsAreRefused) {
  v1::Calibration content = MakeCalibration();
  content.GetReflection()->MutableUnknownFields(&content)->AddVarint(99, 1);
  EXPECT_EQ(ErrorReason(registry_->Create("m", content).status()),
            "INVALID_CALIBRATION");
}

TEST_P(RegistryTest, EverythingIsThereAfterARestart) {
  const auto first = Create("a", 1);
  now_ += absl::Seconds(1);
  const auto second = Create("a", 2);
  Create("b", 3);
  const v1::BitMap map = MakeMap('a', 2.5);
  ASSERT_TRUE(registry_->PutBitMap(NameOf(*first), "key", map).ok());
  Restart();
  EXPECT_EQ((*registry_->Get(NameOf(*first)))->SerializeAsString(),
            first->SerializeAsString());
  EXPECT_EQ(registry_->GetModel("a")->latest_calibration(), second->name());
  EXPECT_EQ(registry_->GetModel("a")->calibration_count(), 2u);
  EXPECT_EQ(ListModels(0, "")->models_size(), 2);
  EXPECT_EQ(registry_->Resolve({"a", "latest"})->id, NameOf(*second).id);
  EXPECT_EQ((*registry_->GetBitMap(NameOf(*first), "key"))->code_bits(), 2.5);
}

TEST_P(RegistryTest, ListsNewestFirstWithoutArrays) {
  std::vector<std::string> names;
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    names.insert(names.begin(), Create("m", seed)->name());
    now_ += absl::Seconds(1);
  }
  const auto all = List("m", 0, "");
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->calibrations_size(), 5);
  for (int i = 0; i < 5; ++i) {
    const v1::Calibration& header = all->calibrations(i);
    EXPECT_EQ(header.name(), names[i]);
    EXPECT_TRUE(header.groups().empty());
    ASSERT_EQ(header.tables_size(), 4);
    EXPECT_TRUE(header.tables(0).c2().empty());
    EXPECT_TRUE(header.tables(0).group_fits().empty());
    EXPECT_GT(header.tables(0).key_fit().beta(), 1);
    EXPECT_EQ(header.capture().sequences(), 16u);
  }
  EXPECT_TRUE(all->next_page_token().empty());
}

TEST_P(RegistryTest, PagesCoverEverythingOnce) {
  for (uint32_t seed = 1; seed <= 5; ++seed) Create("m", seed);
  for (const char* model : {"n", "o"}) Create(model, 1);
  std::set<std::string> calibrations;
  std::string token;
  int pages = 0;
  do {
    const auto page = List("m", 2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->calibrations_size(), 2);
    for (const auto& c : page->calibrations()) calibrations.insert(c.name());
    token = page->next_page_token();
    ++pages;
  } while (!token.empty());
  EXPECT_EQ(calibrations.size(), 5u);
  EXPECT_EQ(pages, 3);

  std::vector<std::string> models;
  do {
    const auto page = ListModels(2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& m : page->models()) models.push_back(m.name());
    token = page->next_page_token();
  } while (!token.empty());
  EXPECT_THAT(models, ElementsAre("models/m", "models/n", "models/o"));
}

TEST_P(RegistryTest, APageTokenBelongsToItsRequest) {
  for (uint32_t seed = 1; seed <= 3; ++seed) Create("m", seed);
  Create("n", 1);
  const std::string token = List("m", 1, "")->next_page_token();
  ASSERT_FALSE(token.empty());
  for (const std::string& bad :
       {std::string("x"), std::string("AAAA"), token.substr(1), token + "A"}) {
    EXPECT_EQ(ErrorReason(List("m", 1, bad).status()), "INVALID_PAGE_TOKEN")
        << bad;
  }
  EXPECT_EQ(ErrorReason(List("n", 1, token).status()), "INVALID_PAGE_TOKEN");
  EXPECT_EQ(ErrorReason(ListModels(1, token).status()), "INVALID_PAGE_TOKEN");
  EXPECT_EQ(ErrorReason(List("m", -1, "").status()), "INVALID_PAGE_SIZE");
  EXPECT_EQ(ErrorReason(ListModels(-5, "").status()), "INVALID_PAGE_SIZE");
}

TEST_P(RegistryTest, ATokenIsBoundToTheFiltersItWasMadeWith) {
  for (uint32_t seed = 1; seed <= 3; ++seed) Create("m", seed);
  for (const char* model : {"ma", "mb", "n"}) Create(model, 1);
  v1::ListCalibrationsRequest calibrations;
  calibrations.set_parent("models/m");
  calibrations.set_page_size(1);
  calibrations.mutable_quantizer()->set_kind(v1::Quantizer::KIVI);
  const auto first = registry_->ListCalibrations("m", calibrations);
  ASSERT_TRUE(first.ok()) << first.status();
  calibrations.set_page_token(first->next_page_token());
  calibrations.set_page_size(2);
  EXPECT_EQ(registry_->ListCalibrations("m", calibrations)->calibrations_size(),
            2);
  calibrations.mutable_quantizer()->set_kind(v1::Quantizer::RTN);
  EXPECT_EQ(
      ErrorReason(registry_->ListCalibrations("m", calibrations).status()),
      "INVALID_PAGE_TOKEN");
  v1::ListModelsRequest models;
  models.set_id_prefix("m");
  models.set_page_size(2);
  const auto page = registry_->ListModels(models);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->models(1).name(), "models/ma");
  models.set_page_token(page->next_page_token());
  EXPECT_EQ(registry_->ListModels(models)->models(0).name(), "models/mb");
  EXPECT_TRUE(registry_->ListModels(models)->next_page_token().empty());
  models.set_id_prefix("");
  EXPECT_EQ(ErrorReason(registry_->ListModels(models).status()),
            "INVALID_PAGE_TOKEN");
}

TEST_P(RegistryTest, CalibrationsAreFilteredByQuantizerAndTime) {
  const auto old = Create("m", 1);
  now_ += absl::Hours(1);
  v1::Calibration kivi = MakeCalibration(
      {.layers = 2,
       .quantizers = {testing::DefaultQuantizer(v1::Quantizer::KIVI)}});
  const auto middle = *registry_->Create("m", kivi);
  now_ += absl::Hours(1);
  const auto newest = Create("m", 2);
  const auto names = [&](const v1::ListCalibrationsRequest& request) {
    std::vector<std::string> names;
    const auto page = registry_->ListCalibrations("m", request);
    EXPECT_TRUE(page.ok()) << page.status();
    if (page.ok()) {
      for (const auto& c : page->calibrations()) names.push_back(c.name());
    }
    return names;
  };
  v1::ListCalibrationsRequest request;
  request.set_parent("models/m");
  request.mutable_quantizer()->set_kind(v1::Quantizer::QUAROT);
  EXPECT_THAT(names(request), ElementsAre(newest->name(), old->name()));
  request.mutable_quantizer()->set_kind(v1::Quantizer::KIVI);
  EXPECT_THAT(names(request),
              ElementsAre(newest->name(), middle->name(), old->name()));
  request.mutable_quantizer()->set_group_size(64);
  EXPECT_THAT(names(request), ElementsAre());
  request.clear_quantizer();
  // From a time on, and before a time.
  *request.mutable_create_time_from() = middle->create_time();
  EXPECT_THAT(names(request), ElementsAre(newest->name(), middle->name()));
  *request.mutable_create_time_before() = newest->create_time();
  EXPECT_THAT(names(request), ElementsAre(middle->name()));
  request.mutable_quantizer()->set_kind(v1::Quantizer::KIND_UNSPECIFIED);
  EXPECT_EQ(ErrorReason(registry_->ListCalibrations("m", request).status()),
            "UNSUPPORTED_QUANTIZER");
}

TEST_P(RegistryTest, PagesStayInOrderWhileOthersWrite) {
  std::set<std::string> before;
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    before.insert(Create("m", seed)->name());
  }
  // Between two pages something newer comes and something listed goes.
  std::vector<std::string> listed;
  std::string token;
  uint32_t seed = 100;
  do {
    const auto page = List("m", 2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& c : page->calibrations()) listed.push_back(c.name());
    token = page->next_page_token();
    Create("m", ++seed);
    const auto gone = ParseCalibrationName(listed.back(), "name");
    ASSERT_TRUE(registry_->Delete(*gone, false).ok());
  } while (!token.empty());
  // Each once, and none that came later.
  EXPECT_EQ(listed.size(), 8u);
  EXPECT_EQ(std::set<std::string>(listed.begin(), listed.end()), before);
}

TEST_P(RegistryTest, TheNewestIsTheLastStoredWhateverTheClockDoes) {
  Create("m", 1);
  now_ -= absl::Hours(24);
  const auto last = Create("m", 2);
  EXPECT_EQ(registry_->Resolve({"m", "latest"})->id, NameOf(*last).id);
  EXPECT_EQ(List("m", 1, "")->calibrations(0).name(), last->name());
  Restart();
  EXPECT_EQ(registry_->Resolve({"m", "latest"})->id, NameOf(*last).id);
}

TEST_P(RegistryTest, DeletingTakesTheBitMapsAndTheNewestMovesBack) {
  const auto first = Create("m", 1);
  const auto second = Create("m", 2);
  const v1::BitMap map = MakeMap('a', 3);
  ASSERT_TRUE(registry_->PutBitMap(NameOf(*first), "k1", map).ok());
  ASSERT_TRUE(registry_->PutBitMap(NameOf(*second), "k2", map).ok());
  ASSERT_TRUE(registry_->Delete(NameOf(*second), false).ok());
  EXPECT_EQ(ErrorReason(registry_->Get(NameOf(*second)).status()),
            "CALIBRATION_NOT_FOUND");
  EXPECT_EQ(ErrorReason(registry_->Delete(NameOf(*second), false)),
            "CALIBRATION_NOT_FOUND");
  EXPECT_FALSE(registry_->GetBitMap(NameOf(*second), "k2")->has_value());
  EXPECT_TRUE(registry_->GetBitMap(NameOf(*first), "k1")->has_value());
  // A solve that was under way when its calibration went doesn't bring it back.
  EXPECT_EQ(ErrorReason(registry_->PutBitMap(NameOf(*second), "k3", map)),
            "CALIBRATION_NOT_FOUND");
  EXPECT_EQ(registry_->GetModel("m")->latest_calibration(), first->name());
  EXPECT_EQ(registry_->GetModel("m")->calibration_count(), 1u);
  Restart();
  EXPECT_EQ(registry_->GetModel("m")->latest_calibration(), first->name());
  ASSERT_TRUE(registry_->Delete(NameOf(*first), false).ok());
  EXPECT_EQ(ErrorReason(registry_->GetModel("m").status()), "MODEL_NOT_FOUND");
  EXPECT_EQ(ListModels(0, "")->models_size(), 0);
  Restart();
  EXPECT_EQ(ErrorReason(registry_->GetModel("m").status()), "MODEL_NOT_FOUND");
}

TEST_P(RegistryTest, ModelIdsThatBeginAlikeAreKeptApart) {
  const auto a = Create("a", 1);
  Create("a-b", 2);
  Create("a.b", 3);
  EXPECT_EQ(List("a", 0, "")->calibrations_size(), 1);
  ASSERT_TRUE(registry_->Delete(NameOf(*a), false).ok());
  EXPECT_EQ(ListModels(0, "")->models_size(), 2);
  EXPECT_EQ(List("a-b", 0, "")->calibrations_size(), 1);
}

TEST_P(RegistryTest, DamagedRowsAreReportedNotServed) {
  const auto calibration = Create("m", 1);
  const ChildName name = NameOf(*calibration);
  Restart();
  ASSERT_TRUE(store_
                  ->Write({{Table::kCalibrations, absl::StrCat("d/m/", name.id),
                            "garbage\xff"}},
                          Durability::kSynced)
                  .ok());
  EXPECT_EQ(ErrorReason(registry_->Get(name).status()), "STORE_CORRUPT");
  ASSERT_TRUE(
      store_->Write({{Table::kModels, "m", "\xff\xff"}}, Durability::kSynced)
          .ok());
  EXPECT_EQ(ErrorReason(Registry::Open(store_.get(), {}).status()),
            "STORE_CORRUPT");
}

INSTANTIATE_TEST_SUITE_P(AllStores, RegistryTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "RocksDb" : "Memory";
                         });

}  // namespace
}  // namespace ratequant::allocation

#include "services/calibration/model_path.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/services/calibration/test_capture.h"

namespace ratequant::calibration {
namespace {

namespace fs = std::filesystem;

class ModelPathTest : public testing::Test {
 protected:
  ModelPathTest() {
    fs::create_directories(dir_ / "root/models/a");
    fs::create_directories(dir_ / "outside/b");
    fs::create_directories(dir_ / "rootless");
    std::ofstream(dir_ / "root/file") << "x";
    fs::create_directory_symlink(dir_ / "outside", dir_ / "root/out");
    fs::create_directory_symlink(dir_ / "root/models", dir_ / "root/in");
    fs::create_directory_symlink(dir_ / "nowhere", dir_ / "root/dangling");
    fs::create_directory_symlink(dir_ / "root", dir_ / "alias");
  }

  // The resolved path, or the reason of the error.
  static std::string Resolve(const std::string& root, const std::string& path) {
    auto opened = ModelRoot::Open(root);
    EXPECT_TRUE(opened.ok()) << opened.status();
    auto resolved = opened->Resolve(path);
    return resolved.ok() ? *resolved : ErrorReason(resolved.status());
  }
  std::string Resolve(const std::string& path) {
    return Resolve(dir_ / "root", path);
  }

  TempDir dir_;
};

TEST_F(ModelPathTest, ResolvesWhatIsInside) {
  const std::string a = dir_ / "root/models/a";
  EXPECT_EQ(Resolve("models/a"), a);
  EXPECT_EQ(Resolve("models/../models/./a/"), a);
  EXPECT_EQ(Resolve("in/a"), a);
  EXPECT_EQ(Resolve(a), a);
  EXPECT_EQ(Resolve("."), dir_ / "root");
}

TEST_F(ModelPathTest, TakesAbsolutePathsThroughTheRootAsItWasGiven) {
  EXPECT_EQ(Resolve(dir_ / "alias", dir_ / "alias/models/a"),
            dir_ / "root/models/a");
  EXPECT_EQ(Resolve(dir_ / "alias", dir_ / "alias/models/z"),
            "MODEL_PATH_NOT_FOUND");
}

TEST_F(ModelPathTest, RefusesWhatIsOutside) {
  const char kOutside[] = "MODEL_PATH_OUTSIDE_ROOT";
  EXPECT_EQ(Resolve("../outside/b"), kOutside);
  EXPECT_EQ(Resolve("models/../../outside"), kOutside);
  EXPECT_EQ(Resolve(dir_ / "outside/b"), kOutside);
  EXPECT_EQ(Resolve("/"), kOutside);
  EXPECT_EQ(Resolve("out/b"), kOutside);
  EXPECT_EQ(Resolve("in/../../outside"), kOutside);
  // A sibling whose name begins like the root's.
  EXPECT_EQ(Resolve(dir_ / "rootless"), kOutside);
}

TEST_F(ModelPathTest, DoesNotTellWhetherSomethingOutsideExists) {
  EXPECT_EQ(Resolve("../nothing-here"), "MODEL_PATH_OUTSIDE_ROOT");
  EXPECT_EQ(Resolve("/nothing-here"), "MODEL_PATH_OUTSIDE_ROOT");
}

TEST_F(ModelPathTest, SaysWhatIsNotThere) {
  EXPECT_EQ(Resolve("models/z"), "MODEL_PATH_NOT_FOUND");
  EXPECT_EQ(Resolve("file"), "MODEL_PATH_NOT_FOUND");
  EXPECT_EQ(Resolve("file/x"), "MODEL_PATH_NOT_FOUND");
  EXPECT_EQ(Resolve("dangling"), "MODEL_PATH_NOT_FOUND");
  EXPECT_EQ(Resolve(std::string(5000, 'x')), "MODEL_PATH_NOT_FOUND");
}

TEST_F(ModelPathTest, RefusesAPathThatIsNone) {
  EXPECT_EQ(Resolve(""), "INVALID_ARGUMENT");
  EXPECT_EQ(Resolve(std::string("models/a\0/../..", 14)), "INVALID_ARGUMENT");
}

TEST_F(ModelPathTest, NeedsARootThatIsAFolder) {
  for (const std::string& root :
       {dir_ / "nothing", dir_ / "root/file", std::string()}) {
    auto opened = ModelRoot::Open(root);
    EXPECT_EQ(ErrorReason(opened.status()), "MODEL_ROOT_UNUSABLE") << root;
  }
}

}  // namespace
}  // namespace ratequant::calibration

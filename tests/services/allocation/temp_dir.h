#ifndef RATEQUANT_TESTS_SERVICES_ALLOCATION_TEMP_DIR_H_
#define RATEQUANT_TESTS_SERVICES_ALLOCATION_TEMP_DIR_H_

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace ratequant::testing {

// A fresh folder that goes away with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "ratequant_XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_SERVICES_ALLOCATION_TEMP_DIR_H_

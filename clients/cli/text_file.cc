#include "clients/cli/text_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/format.h"

namespace ratequant::cli {
namespace {

// Servers take messages of 64 MiB; the rest of the request needs little.
constexpr size_t kMaxTextBytes = 63u << 20;

// Bytes of the well-formed UTF-8 sequence at the start of `text`, 0 when there
// is none (RFC 3629, section 4).
size_t SequenceLength(absl::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  auto within = [&](size_t i, int low, int high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  auto tail = [&](size_t i) { return within(i, 0x80, 0xBF); };
  int lead = byte(0);
  if (lead <= 0x7F) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    int low = lead == 0xE0 ? 0xA0 : 0x80;
    int high = lead == 0xED ? 0x9F : 0xBF;
    return within(1, low, high) && tail(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    int low = lead == 0xF0 ? 0x90 : 0x80;
    int high = lead == 0xF4 ? 0x8F : 0xBF;
    return within(1, low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

absl::StatusOr<std::string> ReadAll(int fd, const std::string& path) {
  std::string text;
  std::vector<char> buffer(1 << 20);
  for (;;) {
    ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
    }
    if (n == 0) return text;
    text.append(buffer.data(), n);
    if (text.size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, " has more than ", FormatCount(kMaxTextBytes),
          " bytes, the most a worker takes; a calibration needs a few hundred "
          "kilobytes: give a part of it"));
    }
  }
}

}  // namespace

size_t FindInvalidUtf8(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    size_t length = SequenceLength(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return absl::string_view::npos;
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  int fd = path == "-" ? dup(STDIN_FILENO)
                       : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info = {};
  if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a folder; give a text file"));
  }
  absl::StatusOr<std::string> text = ReadAll(fd, path);
  if (!text.ok()) return text;
  if (absl::StripAsciiWhitespace(*text).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " holds no text"));
  }
  size_t bad = FindInvalidUtf8(*text);
  if (bad != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s is not UTF-8: line %d, byte %d of the file, is 0x%02x; convert it, "
        "for example with iconv -t UTF-8",
        path, 1 + std::count(text->begin(), text->begin() + bad, '\n'), bad,
        static_cast<unsigned char>((*text)[bad])));
  }
  return text;
}

}  // namespace ratequant::cli

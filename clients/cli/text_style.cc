#include "clients/cli/text_style.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ratequant::cli {
namespace {

// xterm-256 backgrounds for 1 to 8 bits: blue over green and yellow to red.
constexpr int kWidthColour[] = {19, 32, 43, 113, 185, 215, 208, 203};
constexpr int kFp16Colour = 240;

std::string Escape(absl::string_view codes, absl::string_view text) {
  return absl::StrCat("\x1b[", codes, "m", text, "\x1b[0m");
}

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool LocaleIsUtf8() {
  // POSIX: the first of these that isn't empty decides.
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    std::string value = absl::AsciiStrToLower(Variable(name));
    if (value.empty()) continue;
    return absl::StrContains(value, "utf-8") ||
           absl::StrContains(value, "utf8");
  }
  return false;
}

int Columns(int fd) {
  winsize size = {};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 100;
  return size.ws_col;
}

bool IsLive(int fd) { return isatty(fd) != 0 && Variable("TERM") != "dumb"; }

TextStyle StyleOf(int fd) {
  return {.colour = IsLive(fd) && Variable("NO_COLOR").empty(),
          .unicode = LocaleIsUtf8(),
          .columns = Columns(fd)};
}

}  // namespace

std::string Paint(const TextStyle& style, Ink ink, absl::string_view text) {
  if (!style.colour || text.empty()) return std::string(text);
  switch (ink) {
    case Ink::kPlain:
      break;
    case Ink::kBold:
      return Escape("1", text);
    case Ink::kDim:
      return Escape("2", text);
    case Ink::kRed:
      return Escape("31", text);
    case Ink::kGreen:
      return Escape("32", text);
    case Ink::kYellow:
      return Escape("33", text);
    case Ink::kCyan:
      return Escape("36", text);
  }
  return std::string(text);
}

std::string PaintWidth(const TextStyle& style, int width,
                       absl::string_view text) {
  if (!style.colour) return std::string(text);
  bool code = width >= 1 && width <= 8;
  int background = code ? kWidthColour[width - 1] : kFp16Colour;
  // Black on the light middle of the scale, white at its dark ends.
  int foreground = code && width >= 3 ? 16 : 231;
  return Escape(absl::StrCat("38;5;", foreground, ";48;5;", background), text);
}

int DisplayWidth(absl::string_view text) {
  return static_cast<int>(std::count_if(
      text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string PadRight(absl::string_view text, int columns) {
  return absl::StrCat(
      text, std::string(std::max(0, columns - DisplayWidth(text)), ' '));
}

std::string PadLeft(absl::string_view text, int columns) {
  return absl::StrCat(
      std::string(std::max(0, columns - DisplayWidth(text)), ' '), text);
}

Terminal Terminal::Standard() {
  return {.out = &std::cout,
          .err = &std::cerr,
          .out_style = StyleOf(STDOUT_FILENO),
          .err_style = StyleOf(STDERR_FILENO),
          .err_is_live = IsLive(STDERR_FILENO)};
}

}  // namespace ratequant::cli

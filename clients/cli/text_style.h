#ifndef RATEQUANT_CLIENTS_CLI_TEXT_STYLE_H_
#define RATEQUANT_CLIENTS_CLI_TEXT_STYLE_H_

#include <ostream>
#include <string>

#include "absl/strings/string_view.h"

namespace ratequant::cli {

// What a stream's reader can show.
struct TextStyle {
  bool colour = false;   // ANSI escapes
  bool unicode = false;  // block and box characters
  int columns = 100;
};

enum class Ink { kPlain, kBold, kDim, kRed, kGreen, kYellow, kCyan };

// `text` in `ink`; unchanged without colour or for kPlain.
std::string Paint(const TextStyle& style, Ink ink, absl::string_view text);

// `text` on the background of a code width of 1 to 8, cool to warm, grey for
// 16; unchanged without colour.
std::string PaintWidth(const TextStyle& style, int width,
                       absl::string_view text);

// Columns `text`, UTF-8 without escapes, takes: its code points.
int DisplayWidth(absl::string_view text);

// `text` filled with spaces to `columns`.
std::string PadRight(absl::string_view text, int columns);
std::string PadLeft(absl::string_view text, int columns);

// Standard output and standard error, and what their readers can show.
struct Terminal {
  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  TextStyle out_style;
  TextStyle err_style;
  // Standard error is a terminal whose line can be redrawn.
  bool err_is_live = false;

  // The process's own. Colour only on a terminal, and not with NO_COLOR set or
  // TERM=dumb; block characters only in a UTF-8 locale.
  static Terminal Standard();
};

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_TEXT_STYLE_H_

#include "clients/cli/progress.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "clients/cli/format.h"

namespace ratequant::cli {
namespace {

using v1::CalibrateProgress;

constexpr int kBarCells = 30;
constexpr absl::Duration kPlainEvery = absl::Seconds(10);
constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

std::string PlaceText(const CalibrateProgress& progress) {
  std::string text =
      absl::StrCat("queued at place ", progress.queue_position());
  if (progress.has_expected_wait()) {
    absl::StrAppend(&text, ", its turn in about ",
                    FormatTimeSpan(ToDuration(progress.expected_wait())));
  }
  return text;
}

std::string PhaseText(const CalibrateProgress& progress) {
  switch (progress.phase()) {
    case CalibrateProgress::QUEUED:
      return PlaceText(progress);
    case CalibrateProgress::LOADING:
      return "loading the model";
    case CalibrateProgress::CAPTURING:
      return "capturing";
    case CalibrateProgress::FITTING:
      return "fitting curves";
    case CalibrateProgress::PUBLISHING:
      return "publishing";
    case CalibrateProgress::DONE:
      return "done";
    default:
      return "working";
  }
}

double Fraction(const CalibrateProgress& progress) {
  if (progress.tokens_total() == 0) return 0;
  return std::clamp(static_cast<double>(progress.tokens_done()) /
                        static_cast<double>(progress.tokens_total()),
                    0.0, 1.0);
}

// Rounded down: 100% is said only when all is done.
std::string PercentText(const CalibrateProgress& progress) {
  return absl::StrCat(static_cast<int>(100 * Fraction(progress)), "%");
}

std::string TokensText(const CalibrateProgress& progress) {
  return absl::StrCat(FormatCount(progress.tokens_done()), "/",
                      FormatCount(progress.tokens_total()), " tokens");
}

// A decimal where whole numbers would hide the difference.
std::string RateText(double rate) {
  return absl::StrCat(
      rate < 9.95 ? FormatFixed(rate, 1) : FormatCount(std::llround(rate)),
      " tokens/s");
}

std::string Cut(const std::string& line, int columns) {
  int at = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if ((line[i] & 0xC0) != 0x80 && at++ == columns) return line.substr(0, i);
  }
  return line;
}

}  // namespace

std::string RenderBar(double fraction, int cells, const TextStyle& style) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  int steps = style.unicode ? 8 : 1;
  int filled = static_cast<int>(fraction * cells * steps);
  std::string bar;
  for (int i = 0; i < filled / steps; ++i) bar += style.unicode ? "█" : "#";
  int left = cells - filled / steps;
  if (filled % steps != 0) {
    bar += kEighths[filled % steps];
    --left;
  }
  for (int i = 0; i < left; ++i) bar += style.unicode ? "░" : "-";
  return bar;
}

std::optional<double> ProgressView::Rate(
    const CalibrateProgress& progress) const {
  if (!capture_began_.has_value()) return std::nullopt;
  double seconds =
      absl::ToDoubleSeconds(ToDuration(progress.elapsed()) - *capture_began_);
  if (seconds <= 0 || progress.tokens_done() <= tokens_at_begin_) {
    return std::nullopt;
  }
  return static_cast<double>(progress.tokens_done() - tokens_at_begin_) /
         seconds;
}

std::string ProgressView::LiveLine(const CalibrateProgress& progress) const {
  std::string phase = PhaseText(progress);
  if (progress.phase() != CalibrateProgress::CAPTURING ||
      progress.tokens_total() == 0) {
    return absl::StrCat(phase, "  ",
                        FormatTimeSpan(ToDuration(progress.elapsed())));
  }
  std::string after = absl::StrCat(PadLeft(PercentText(progress), 4), "  ",
                                   TokensText(progress));
  if (std::optional<double> rate = Rate(progress); rate.has_value()) {
    absl::StrAppend(&after, "  ", RateText(*rate));
  }
  if (progress.has_remaining()) {
    absl::StrAppend(&after, "  ",
                    FormatTimeSpan(ToDuration(progress.remaining())), " left");
  }
  // On a narrow terminal the bar gives way to the figures.
  int room = style_.columns - 1 - DisplayWidth(phase) - DisplayWidth(after) - 4;
  int cells = std::min(kBarCells, room);
  if (cells < 5) return absl::StrCat(phase, "  ", after);
  return absl::StrCat(phase, "  ", RenderBar(Fraction(progress), cells, style_),
                      "  ", after);
}

std::string ProgressView::PlainLine(const CalibrateProgress& progress) const {
  std::string line = PhaseText(progress);
  if (progress.phase() == CalibrateProgress::CAPTURING &&
      progress.tokens_total() != 0) {
    absl::StrAppend(&line, ": ", PercentText(progress), ", ",
                    TokensText(progress));
    if (std::optional<double> rate = Rate(progress); rate.has_value()) {
      absl::StrAppend(&line, ", ", RateText(*rate));
    }
    if (progress.has_remaining()) {
      absl::StrAppend(&line, ", ",
                      FormatTimeSpan(ToDuration(progress.remaining())),
                      " left");
    }
    return line;
  }
  return absl::StrCat(line, ", ",
                      FormatTimeSpan(ToDuration(progress.elapsed())));
}

bool ProgressView::DueForPlainLine(const CalibrateProgress& progress) {
  absl::Duration elapsed = ToDuration(progress.elapsed());
  int tenth = static_cast<int>(10 * Fraction(progress));
  bool due = progress.phase() != phase_ || tenth > tenth_ ||
             elapsed >= written_at_ + kPlainEvery;
  if (due) {
    phase_ = progress.phase();
    tenth_ = std::max(tenth_, tenth);
    written_at_ = elapsed;
  }
  return due;
}

void ProgressView::Update(const CalibrateProgress& progress) {
  if (progress.phase() == CalibrateProgress::CAPTURING &&
      !capture_began_.has_value()) {
    capture_began_ = ToDuration(progress.elapsed());
    tokens_at_begin_ = progress.tokens_done();
  }
  if (progress.phase() == CalibrateProgress::DONE) return;
  if (live_) {
    // Back to the first column, the line, and nothing after it.
    *out_ << "\r" << Cut(LiveLine(progress), style_.columns - 1) << "\x1b[K"
          << std::flush;
    line_drawn_ = true;
  } else if (DueForPlainLine(progress)) {
    *out_ << PlainLine(progress) << std::endl;
  }
}

void ProgressView::Clear() {
  if (line_drawn_) *out_ << "\r\x1b[K" << std::flush;
  line_drawn_ = false;
}

}  // namespace ratequant::cli

#ifndef RATEQUANT_CLIENTS_CLI_PROGRESS_H_
#define RATEQUANT_CLIENTS_CLI_PROGRESS_H_

#include <optional>
#include <ostream>
#include <string>

#include "absl/time/time.h"
#include "clients/cli/text_style.h"
#include "ratequant/v1/calibration_service.pb.h"

namespace ratequant::cli {

// A bar of `cells` columns, filled to `fraction` (taken into 0 to 1): "###---",
// with block characters to an eighth of a column.
std::string RenderBar(double fraction, int cells, const TextStyle& style);

// Shows a calibration's progress. On a live terminal one line is redrawn for
// every message; elsewhere a line is written when the phase changes, when
// another tenth is done, and every ten seconds.
class ProgressView {
 public:
  // `out` must outlive this.
  ProgressView(std::ostream* out, TextStyle style, bool live)
      : out_(out), style_(style), live_(live) {}

  // Takes down what is left on the line.
  ~ProgressView() { Clear(); }
  ProgressView(const ProgressView&) = delete;
  ProgressView& operator=(const ProgressView&) = delete;

  void Update(const v1::CalibrateProgress& progress);

  // Empties the live line, so that other text can be written.
  void Clear();

 private:
  bool DueForPlainLine(const v1::CalibrateProgress& progress);
  std::string LiveLine(const v1::CalibrateProgress& progress) const;
  std::string PlainLine(const v1::CalibrateProgress& progress) const;

  // Tokens a second since capturing began; nullopt while unknown.
  std::optional<double> Rate(const v1::CalibrateProgress& progress) const;

  std::ostream* out_;
  const TextStyle style_;
  const bool live_;
  bool line_drawn_ = false;

  // Where capturing began; the time before it is the model's loading.
  std::optional<absl::Duration> capture_began_;
  uint64_t tokens_at_begin_ = 0;

  // What the last plain line said.
  v1::CalibrateProgress::Phase phase_ =
      v1::CalibrateProgress::PHASE_UNSPECIFIED;
  int tenth_ = 0;
  absl::Duration written_at_;
};

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_PROGRESS_H_

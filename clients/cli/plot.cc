#include "clients/cli/plot.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/format.h"

namespace ratequant::cli {
namespace {

constexpr int kTickEvery = 12;  // columns between numbers on the x axis

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  double At(double fraction) const { return low + fraction * (high - low); }
};

// Points with a logarithm, y replaced by it.
std::vector<PlotPoint> LogPoints(const PlotSeries& series) {
  std::vector<PlotPoint> points;
  for (const PlotPoint& point : series.points) {
    if (point.y > 0 && std::isfinite(point.y)) {
      points.push_back({point.x, std::log(point.y)});
    }
  }
  return points;
}

// The line's height at `x`; nullopt outside its ends.
std::optional<double> HeightAt(const std::vector<PlotPoint>& points, double x,
                               bool steps) {
  if (points.empty() || x < points.front().x || x > points.back().x) {
    return std::nullopt;
  }
  auto right = std::upper_bound(
      points.begin(), points.end(), x,
      [](double value, const PlotPoint& point) { return value < point.x; });
  const PlotPoint& left = *(right - 1);
  if (steps || right == points.end()) return left.y;
  double fraction = (x - left.x) / (right->x - left.x);
  return left.y + fraction * (right->y - left.y);
}

class Canvas {
 public:
  Canvas(const PlotSpec& spec, Range x, Range y)
      : spec_(spec),
        x_(x),
        y_(y),
        marks_(spec.rows, std::string(spec.columns, ' ')) {}

  void Draw(const PlotSeries& series, const std::vector<PlotPoint>& points) {
    for (int column = 0; column < spec_.columns; ++column) {
      std::optional<double> height =
          HeightAt(points, XAt(column), series.steps);
      if (!height.has_value()) continue;
      double fraction = (*height - y_.low) / (y_.high - y_.low);
      int row =
          static_cast<int>(std::lround((1 - fraction) * (spec_.rows - 1)));
      char& mark = marks_[row][column];
      if (mark == ' ') mark = series.mark;
    }
  }

  double XAt(int column) const {
    return x_.At(static_cast<double>(column) / (spec_.columns - 1));
  }
  double YAt(int row) const {
    return std::exp(y_.At(1 - static_cast<double>(row) / (spec_.rows - 1)));
  }
  const std::string& row(int i) const { return marks_[i]; }

 private:
  const PlotSpec& spec_;
  const Range x_;
  const Range y_;
  std::vector<std::string> marks_;
};

std::string PaintMarks(const std::string& row,
                       const std::vector<PlotSeries>& series,
                       const TextStyle& style) {
  std::string text;
  for (char mark : row) {
    auto found =
        std::find_if(series.begin(), series.end(),
                     [mark](const PlotSeries& s) { return s.mark == mark; });
    Ink ink = found == series.end() ? Ink::kPlain : found->ink;
    text += Paint(mark == ' ' ? TextStyle() : style, ink, std::string(1, mark));
  }
  absl::StripTrailingAsciiWhitespace(&text);
  return text;
}

// The axis with a tick and a number every kTickEvery columns.
std::string XAxis(const PlotSpec& spec, const Canvas& canvas, int label_columns,
                  bool unicode) {
  std::string line(label_columns + 1, ' ');
  std::string numbers(label_columns + 2, ' ');
  line += unicode ? "└" : "+";
  for (int column = 0; column < spec.columns; ++column) {
    bool tick = column % kTickEvery == 0;
    line += unicode ? (tick ? "┬" : "─") : (tick ? "+" : "-");
    if (!tick) continue;
    numbers = PadRight(numbers, label_columns + 2 + column);
    numbers += FormatFixed(canvas.XAt(column), 2);
  }
  return absl::StrCat(line, "\n", numbers, "\n");
}

}  // namespace

std::string RenderPlot(const PlotSpec& spec,
                       const std::vector<PlotSeries>& series,
                       const TextStyle& style) {
  Range x;
  Range y;
  std::vector<std::vector<PlotPoint>> lines;
  for (const PlotSeries& s : series) {
    lines.push_back(LogPoints(s));
    for (const PlotPoint& point : lines.back()) {
      x.Include(point.x);
      y.Include(point.y);
    }
  }
  if (!(x.low < x.high) || !(y.low < y.high)) return "";

  Canvas canvas(spec, x, y);
  for (size_t i = 0; i < series.size(); ++i) canvas.Draw(series[i], lines[i]);

  // A number at the top, the bottom and two heights between.
  std::vector<std::string> labels(spec.rows);
  int label_columns = 0;
  for (int i = 0; i < 4; ++i) {
    int row = i * (spec.rows - 1) / 3;
    labels[row] = FormatSignificant(canvas.YAt(row), 2);
    label_columns = std::max(label_columns, DisplayWidth(labels[row]));
  }

  std::string text = absl::StrCat(Paint(style, Ink::kBold, spec.title));
  for (size_t i = 0; i < series.size(); ++i) {
    if (lines[i].empty()) continue;
    absl::StrAppend(&text, "   ",
                    Paint(style, series[i].ink, std::string(1, series[i].mark)),
                    " ", series[i].name);
  }
  text += "\n";
  for (int row = 0; row < spec.rows; ++row) {
    std::string line =
        absl::StrCat(PadLeft(labels[row], label_columns), " ",
                     style.unicode ? (labels[row].empty() ? "│" : "┤") : "|",
                     PaintMarks(canvas.row(row), series, style));
    absl::StrAppend(&text, line, "\n");
  }
  absl::StrAppend(&text, XAxis(spec, canvas, label_columns, style.unicode));
  absl::StrAppend(&text, std::string(label_columns + 2, ' '), spec.x_label,
                  "\n");
  return text;
}

}  // namespace ratequant::cli

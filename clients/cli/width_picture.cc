#include "clients/cli/width_picture.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/quantizer_letters.h"
#include "clients/cpp/quantizer_text.h"

namespace ratequant::cli {
namespace {

constexpr int kFp16 = 16;
constexpr int kTensorGap = 2;     // columns between K and V
constexpr int kBlockGap = 4;      // columns between blocks of layers
constexpr int kMinBlockRows = 8;  // fewer rows aren't worth a further block

// What one part of the picture shows and how closely.
struct Frame {
  std::vector<int> tensors;  // 0 is K, 1 is V
  int first_head = 0;
  int heads = 0;
  int cell_gap = 0;  // columns between cells
};

class Picture {
 public:
  Picture(const v1::BitMap& map, const TextStyle& style)
      : map_(map),
        style_(style),
        letters_(QuantizerLetters(map.quantizers())),
        layers_(static_cast<int>(map.geometry().layers())),
        heads_(static_cast<int>(map.geometry().kv_heads())),
        label_columns_(
            static_cast<int>(absl::StrCat(std::max(0, layers_ - 1)).size())) {}

  std::string Render() const {
    std::string text;
    for (const Frame& frame : Frames()) {
      if (!text.empty()) text += "\n";
      text += RenderFrame(frame);
    }
    return absl::StrCat(text, "\n", Legend());
  }

 private:
  bool mixed() const { return map_.quantizers_size() > 1; }
  int cell_columns() const { return mixed() ? 2 : 1; }

  int TensorColumns(const Frame& frame) const {
    return frame.heads * (cell_columns() + frame.cell_gap) - frame.cell_gap;
  }

  int BlockColumns(const Frame& frame) const {
    int tensors = static_cast<int>(frame.tensors.size());
    return label_columns_ + tensors * (kTensorGap + TensorColumns(frame));
  }

  // The roomiest frames that fit.
  std::vector<Frame> Frames() const {
    for (int gap : {1, 0}) {
      Frame both = {{0, 1}, 0, heads_, gap};
      if (BlockColumns(both) <= style_.columns) return {both};
    }
    for (int gap : {1, 0}) {
      Frame key = {{0}, 0, heads_, gap};
      Frame value = {{1}, 0, heads_, gap};
      if (BlockColumns(key) <= style_.columns) return {key, value};
    }
    int room = style_.columns - label_columns_ - kTensorGap;
    int part = std::max(1, room / cell_columns());
    std::vector<Frame> frames;
    for (int tensor : {0, 1}) {
      for (int head = 0; head < heads_; head += part) {
        frames.push_back({{tensor}, head, std::min(part, heads_ - head), 0});
      }
    }
    return frames;
  }

  std::string Title(const Frame& frame, int tensor) const {
    std::string name = tensor == 0 ? "K" : "V";
    if (frame.heads == heads_) return name;
    if (frame.heads == 1) {
      return absl::StrCat(name, " head ", frame.first_head);
    }
    return absl::StrCat(name, " heads ", frame.first_head, "-",
                        frame.first_head + frame.heads - 1);
  }

  std::string Header(const Frame& frame) const {
    std::string line(label_columns_, ' ');
    for (int tensor : frame.tensors) {
      absl::StrAppend(&line, std::string(kTensorGap, ' '),
                      PadRight(Title(frame, tensor), TensorColumns(frame)));
    }
    return line;
  }

  std::string Cell(int group) const {
    int width = static_cast<int>(map_.width(group));
    if (!mixed()) return width == kFp16 ? "F" : absl::StrCat(width);
    if (width == kFp16) return "16";
    size_t quantizer = map_.quantizer_index(group);
    char letter = quantizer < letters_.size() ? letters_[quantizer] : '?';
    return absl::StrCat(width, std::string(1, letter));
  }

  std::string Row(const Frame& frame, int layer) const {
    std::string line =
        Paint(style_, Ink::kDim, PadLeft(absl::StrCat(layer), label_columns_));
    for (int tensor : frame.tensors) {
      line.append(kTensorGap, ' ');
      for (int i = 0; i < frame.heads; ++i) {
        int group = (layer * heads_ + frame.first_head + i) * 2 + tensor;
        // The gap takes the cell's colour, so that a row is one band.
        int gap = i + 1 < frame.heads ? frame.cell_gap : 0;
        line += PaintWidth(style_, static_cast<int>(map_.width(group)),
                           absl::StrCat(Cell(group), std::string(gap, ' ')));
      }
    }
    return line;
  }

  std::string RenderFrame(const Frame& frame) const {
    int fit = (style_.columns + kBlockGap) / (BlockColumns(frame) + kBlockGap);
    int worth = (layers_ + kMinBlockRows - 1) / kMinBlockRows;
    int blocks = std::max(1, std::min(fit, worth));
    int rows = (layers_ + blocks - 1) / blocks;
    std::vector<std::string> header;
    for (int layer = 0; layer < layers_; layer += rows) {
      header.push_back(Paint(style_, Ink::kBold, Header(frame)));
    }
    std::string gap(kBlockGap, ' ');
    std::string text = absl::StrJoin(header, gap);
    absl::StripTrailingAsciiWhitespace(&text);
    text += "\n";
    for (int row = 0; row < rows; ++row) {
      std::vector<std::string> line;
      for (int layer = row; layer < layers_; layer += rows) {
        line.push_back(Row(frame, layer));
      }
      absl::StrAppend(&text, absl::StrJoin(line, gap), "\n");
    }
    return text;
  }

  std::string Legend() const {
    std::string text = absl::StrCat(
        "rows: layers; columns: KV heads",
        heads_ > 1 ? absl::StrCat(" 0-", heads_ - 1) : "", "; cells: bits");
    if (mixed()) {
      std::vector<std::string> names;
      for (int i = 0; i < map_.quantizers_size(); ++i) {
        names.push_back(
            absl::StrCat(std::string(1, letters_[i]), " ",
                         client::QuantizerText(map_.quantizers(i))));
      }
      absl::StrAppend(&text, " and quantizer (", absl::StrJoin(names, ", "),
                      ")");
    }
    bool fp16 = std::any_of(map_.width().begin(), map_.width().end(),
                            [](uint32_t w) { return w == kFp16; });
    if (fp16) absl::StrAppend(&text, "; ", mixed() ? "16" : "F", " is fp16");
    return absl::StrCat(Paint(style_, Ink::kDim, text), "\n");
  }

  const v1::BitMap& map_;
  const TextStyle& style_;
  const std::vector<char> letters_;
  const int layers_;
  const int heads_;
  const int label_columns_;
};

}  // namespace

std::string RenderWidthPicture(const v1::BitMap& map, const TextStyle& style) {
  return Picture(map, style).Render();
}

}  // namespace ratequant::cli

#ifndef RATEQUANT_CLIENTS_CLI_WIDTH_PICTURE_H_
#define RATEQUANT_CLIENTS_CLI_WIDTH_PICTURE_H_

#include <string>

#include "clients/cli/text_style.h"
#include "ratequant/v1/bit_map.pb.h"

namespace ratequant::cli {

// The widths of a bit map as a picture: a row for each layer, a column for each
// KV head, K beside V, each cell the width in bits and, when the map mixes
// quantizers, the quantizer's letter ("2k"); fp16 is "16", or "F" in a map of
// one quantizer. Fits `style.columns`: layers continue in a further block to
// the right while there is room; cells close up, then V goes below K, then
// heads are split when there is not. Ends with a legend.
//
// `map` must have a width and a quantizer for each group of its geometry.
std::string RenderWidthPicture(const v1::BitMap& map, const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_WIDTH_PICTURE_H_

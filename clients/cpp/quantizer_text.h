#ifndef RATEQUANT_CLIENTS_CPP_QUANTIZER_TEXT_H_
#define RATEQUANT_CLIENTS_CPP_QUANTIZER_TEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/v1/quantizer.pb.h"

namespace ratequant::client {

// The quantizer of a text like "kivi:group_size=64" (grammar in
// ratequant/kv/quantizer.h), every field that applies filled in.
// INVALID_ARGUMENT names what isn't known and what is supported.
absl::StatusOr<v1::Quantizer> QuantizerFromText(absl::string_view text);

// The shortest text QuantizerFromText turns into `quantizer`; fields left at
// zero mean their defaults. A kind this client doesn't know is named by its
// number.
std::string QuantizerText(const v1::Quantizer& quantizer);

// The runtime's form of `quantizer`; fields left at zero mean their defaults.
// INVALID_ARGUMENT for a kind this client doesn't know, by its number.
absl::StatusOr<kv::QuantizerSpec> QuantizerSpecOf(
    const v1::Quantizer& quantizer);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_QUANTIZER_TEXT_H_

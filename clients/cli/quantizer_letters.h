#ifndef RATEQUANT_CLIENTS_CLI_QUANTIZER_LETTERS_H_
#define RATEQUANT_CLIENTS_CLI_QUANTIZER_LETTERS_H_

#include <vector>

#include "google/protobuf/repeated_field.h"
#include "ratequant/v1/quantizer.pb.h"

namespace ratequant::cli {

// One letter for each quantizer, all different: the first of its name ("k" for
// kivi), in upper case for the second of a kind, then whatever letter is free.
std::vector<char> QuantizerLetters(
    const google::protobuf::RepeatedPtrField<v1::Quantizer>& quantizers);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_QUANTIZER_LETTERS_H_

#ifndef RATEQUANT_CLIENTS_CLI_EVALUATION_VIEW_H_
#define RATEQUANT_CLIENTS_CLI_EVALUATION_VIEW_H_

#include <string>
#include <vector>

#include "clients/cli/text_style.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/evaluation.pb.h"

namespace ratequant::cli {

// What was measured of an answer's map, and why it isn't the solved one: lines
// that end in a newline; none when nothing was.
std::string RenderEvidence(const v1::GetBitMapResponse& answer);

// Evaluations in a table.
std::string RenderEvaluations(const std::vector<v1::Evaluation>& evaluations,
                              const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_EVALUATION_VIEW_H_

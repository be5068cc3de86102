#ifndef RATEQUANT_CLIENTS_CLI_CALIBRATION_VIEW_H_
#define RATEQUANT_CLIENTS_CLI_CALIBRATION_VIEW_H_

#include <string>
#include <vector>

#include "clients/cli/text_style.h"
#include "ratequant/v1/calibration.pb.h"
#include "ratequant/v1/model.pb.h"

namespace ratequant::cli {

// A row for each model.
std::string RenderModels(const std::vector<v1::Model>& models,
                         const TextStyle& style);

// One model.
std::string RenderModel(const v1::Model& model, const TextStyle& style);

// A row for each calibration.
std::string RenderCalibrationList(
    const std::vector<v1::Calibration>& calibrations, const TextStyle& style);

// What was measured, the predicted loss at every width, and the fits.
std::string RenderCalibration(const v1::Calibration& calibration,
                              const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_CALIBRATION_VIEW_H_

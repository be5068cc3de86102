#include "services/common/auth_rules.h"

#include <algorithm>

#include "absl/strings/strip.h"

namespace ratequant {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr auto kReader = v1::AccessBinding::READER;
constexpr auto kCalibrator = v1::AccessBinding::CALIBRATOR;
constexpr auto kAdmin = v1::AccessBinding::ADMIN;
using enum AccessScope;

constexpr AccessRule kRules[] = {
    {"ratequant.v1.RegistryService.CreateCalibration", kCalibrator, kModel,
     "parent"},
    {"ratequant.v1.RegistryService.GetCalibration", kReader, kModel, "name"},
    {"ratequant.v1.RegistryService.ListCalibrations", kReader, kModel,
     "parent"},
    {"ratequant.v1.RegistryService.DeleteCalibration", kAdmin, kModel, "name"},
    {"ratequant.v1.RegistryService.GetModel", kReader, kModel, "name"},
    {"ratequant.v1.RegistryService.ListModels", kReader, kIdPrefix,
     "id_prefix"},
    {"ratequant.v1.RegistryService.ListEvaluations", kReader, kModel, "parent"},
    {"ratequant.v1.RegistryService.DeleteEvaluation", kAdmin, kModel, "name"},
    // Policies belong to the fleet: whoever may change them may do so for every
    // model that uses them.
    {"ratequant.v1.RegistryService.CreatePolicy", kCalibrator, kAllModels},
    {"ratequant.v1.RegistryService.GetPolicy", kReader, kAnyModel},
    {"ratequant.v1.RegistryService.ListPolicies", kReader, kAnyModel},
    {"ratequant.v1.RegistryService.DeletePolicy", kAdmin, kAllModels},
    {"ratequant.v1.AllocationService.GetBitMap", kReader, kModel, "model"},
    {"ratequant.v1.AllocationService.BatchGetBitMaps", kReader, kEachModel,
     "model"},
    {"ratequant.v1.AllocationService.WatchBitMap", kReader, kModel, "model"},
    {"ratequant.v1.AllocationService.RecordEvaluation", kCalibrator, kModel,
     "bit_map"},
    {"ratequant.v1.AllocationService.GetRateDistortionCurve", kReader, kModel,
     "model"},
    {"ratequant.v1.AdminService.CreateBackup", kAdmin, kAllModels},
    {"ratequant.v1.AdminService.GetStatistics", kReader, kAllModels},
    {"ratequant.v1.CalibrationService.CalibrateModel", kCalibrator, kModel,
     "model"},
    {"ratequant.v1.CalibrationService.CalibrateStream", kCalibrator, kStreamed},
};

std::string StringField(const Message& message, absl::string_view name) {
  const FieldDescriptor* field =
      message.GetDescriptor()->FindFieldByName(std::string(name));
  return message.GetReflection()->GetString(message, field);
}

}  // namespace

absl::Span<const AccessRule> AccessRules() { return kRules; }

const AccessRule* FindAccessRule(absl::string_view method) {
  const auto* rule = std::find_if(
      std::begin(kRules), std::end(kRules),
      [method](const AccessRule& r) { return r.method == method; });
  return rule == std::end(kRules) ? nullptr : rule;
}

std::string ModelIdOf(absl::string_view resource) {
  if (!absl::ConsumePrefix(&resource, "models/")) return "";
  return std::string(resource.substr(0, resource.find('/')));
}

std::vector<std::string> ModelsOf(const AccessRule& rule,
                                  const Message& request) {
  switch (rule.scope) {
    case kModel:
      return {ModelIdOf(StringField(request, rule.field))};
    case kIdPrefix:
      return {StringField(request, rule.field)};
    case kEachModel: {
      std::vector<std::string> models;
      const FieldDescriptor* entries =
          request.GetDescriptor()->FindFieldByName("requests");
      const auto* reflection = request.GetReflection();
      for (int i = 0; i < reflection->FieldSize(request, entries); ++i) {
        models.push_back(ModelIdOf(StringField(
            reflection->GetRepeatedMessage(request, entries, i), rule.field)));
      }
      return models;
    }
    default:
      return {};
  }
}

}  // namespace ratequant

#include "services/allocation/bit_map_cache.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "services/allocation/evidence.h"
#include "services/allocation/planner.h"
#include "services/allocation/query.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::allocation {
namespace {

// What an entry takes beside its answer and its key, about.
constexpr size_t kEntryBytes = 256;

grpc::ByteBuffer Serialize(const v1::GetBitMapResponse& response) {
  const grpc::Slice slice(response.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

// Null when `bytes` aren't a response.
BitMapCache::Answer Parse(grpc::ByteBuffer bytes) {
  auto answer = std::make_shared<v1::GetBitMapResponse>();
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::GetBitMapResponse>::Deserialize(
          &bytes, answer.get());
  return parsed.ok() ? answer : nullptr;
}

std::string Etag(const v1::BitMap& map) {
  return map.name().substr(map.name().rfind('/') + 1);
}

}  // namespace

BitMapCache::BitMapCache(Registry* registry, size_t memory_bytes)
    : registry_(registry),
      memory_(memory_bytes),
      solve_seconds_(Metrics::Get().Durations(
          "ratequant_solve_duration_seconds",
          "Time to solve for a bit map that wasn't stored")) {}

// Requests that mean the same may differ here: they then meet in the store. The
// parts that are resolved or don't change the answer are left out.
std::string BitMapCache::MemoryKey(const ChildName& calibration,
                                   const v1::GetBitMapRequest& request) const {
  v1::GetBitMapRequest key;
  *key.mutable_quantizers() = request.quantizers();
  if (request.has_budget()) *key.mutable_budget() = request.budget();
  if (request.has_policy()) *key.mutable_policy() = request.policy();
  if (request.has_cache()) *key.mutable_cache() = request.cache();
  return absl::StrCat(calibration.model, "/", calibration.id, "/",
                      registry_->EvaluationState(calibration.model), "/",
                      key.SerializeAsString());
}

absl::StatusOr<ChildName> BitMapCache::Resolve(
    const std::string& model, const std::string& calibration) const {
  const absl::StatusOr<std::string> id = ParseModelName(model, "model");
  if (!id.ok()) return id.status();
  if (calibration.empty()) {
    return registry_->Resolve({*id, kLatestCalibration});
  }
  const absl::StatusOr<ChildName> name =
      ParseCalibrationName(calibration, "calibration");
  if (!name.ok()) return name.status();
  if (name->model != *id) {
    return FieldError(
        "INVALID_NAME", "calibration",
        absl::StrCat("'", calibration, "' isn't a calibration of ", model));
  }
  return registry_->Resolve(*name);
}

std::optional<grpc::ByteBuffer> BitMapCache::Lookup(
    const ChildName& calibration, const v1::GetBitMapRequest& request) {
  std::shared_ptr<const grpc::ByteBuffer> bytes;
  if (request.policy_name().empty()) {
    bytes = memory_.Get(MemoryKey(calibration, request));
  } else if (const auto resolved = registry_->policies().Resolve(request);
             resolved.ok()) {
    bytes = memory_.Get(MemoryKey(calibration, *resolved));
  }
  if (bytes == nullptr) return std::nullopt;
  if (request.known_etag().empty()) return *bytes;
  const Answer answer = Parse(*bytes);
  if (answer == nullptr) return std::nullopt;
  return RespondTo(request, *answer);
}

absl::StatusOr<BitMapCache::Answer> BitMapCache::Get(
    const v1::GetBitMapRequest& request) {
  const absl::StatusOr<ChildName> calibration = ResolveCalibration(request);
  if (!calibration.ok()) return calibration.status();
  return Get(*calibration, request);
}

absl::StatusOr<BitMapCache::Answer> BitMapCache::Get(
    const ChildName& calibration, const v1::GetBitMapRequest& request) {
  if (!request.policy_name().empty()) {
    const auto resolved = registry_->policies().Resolve(request);
    return resolved.ok() ? Get(calibration, *resolved) : resolved.status();
  }
  // Made before the evaluations are read: an answer never outlives them.
  const std::string key = MemoryKey(calibration, request);
  if (const auto bytes = memory_.Get(key)) {
    if (Answer answer = Parse(*bytes)) return answer;
  }
  absl::StatusOr<Answer> answer = Decide(calibration, request);
  if (answer.ok()) {
    auto bytes = std::make_shared<const grpc::ByteBuffer>(Serialize(**answer));
    const size_t weight = bytes->Length() + 2 * key.size() + kEntryBytes;
    memory_.Put(key, std::move(bytes), weight);
  }
  return answer;
}

absl::StatusOr<BitMapCache::Answer> BitMapCache::Decide(
    const ChildName& calibration, const v1::GetBitMapRequest& request) {
  const v1::Policy& policy = request.policy();
  absl::Status valid = CheckEvidencePolicy(policy);
  if (!valid.ok()) return valid;
  absl::StatusOr<Map> map = GetMap(calibration, request);
  if (!map.ok()) return map.status();
  auto evaluation =
      registry_->NewestEvaluation({calibration.model, Etag(**map)});
  if (!evaluation.ok()) return evaluation.status();
  auto answer = std::make_shared<v1::GetBitMapResponse>();
  bool worse =
      evaluation->has_value() && WorseThanUniform(**evaluation, (*map)->name());
  if (worse && !policy.keep_measured_worse()) {
    v1::GetBitMapRequest uniform_request = request;
    uniform_request.mutable_policy()->set_strategy(v1::Policy::UNIFORM);
    const absl::StatusOr<Map> uniform = GetMap(calibration, uniform_request);
    // Without another one the map stays, and is flagged.
    if (uniform.ok() && (*uniform)->name() != (*map)->name()) {
      v1::Replacement* replacement = answer->mutable_replacement();
      replacement->set_replaced_bit_map((*map)->name());
      replacement->set_reason(WorseReason(**evaluation));
      *replacement->mutable_evaluation() = **std::move(evaluation);
      map = uniform;
      evaluation =
          registry_->NewestEvaluation({calibration.model, Etag(**map)});
      if (!evaluation.ok()) return evaluation.status();
      worse = false;
    }
  }
  absl::Status allowed = CheckEvidence(policy, (*map)->name(), *evaluation);
  if (!allowed.ok()) return allowed;
  if (evaluation->has_value()) {
    *answer->mutable_evaluation() = **std::move(evaluation);
  }
  answer->set_worse_than_uniform(worse);
  answer->set_etag(Etag(**map));
  *answer->mutable_bit_map() = **map;
  return Answer(std::move(answer));
}

absl::StatusOr<BitMapCache::Map> BitMapCache::GetMap(
    const ChildName& calibration, const v1::GetBitMapRequest& request) {
  const auto measured = registry_->Get(calibration);
  if (!measured.ok()) return measured.status();
  v1::GetBitMapRequest solved = request;
  ClearEvidencePolicy(solved.mutable_policy());
  const absl::StatusOr<Query> query = MakeQuery(solved, **measured);
  if (!query.ok()) return query.status();
  const absl::StatusOr<std::string> key = QueryKey(*query, **measured);
  if (!key.ok()) {
    return FieldError("INVALID_POLICY", "policy", key.status().message());
  }
  return flights_.Do(
      *key, [&] { return ReadOrSolve(calibration, **measured, *query, *key); });
}

absl::StatusOr<BitMapCache::Map> BitMapCache::ReadOrSolve(
    const ChildName& calibration, const v1::Calibration& measured,
    const Query& query, const std::string& key) {
  absl::StatusOr<std::optional<v1::BitMap>> stored =
      registry_->GetBitMap(calibration, key);
  if (stored.ok() && stored->has_value()) {
    ++stored_;
    return std::make_shared<const v1::BitMap>(**std::move(stored));
  }
  if (!stored.ok()) {
    spdlog::warn("solving again: {}", std::string(stored.status().message()));
  }
  ++solves_;
  const absl::Time begin = absl::Now();
  absl::StatusOr<v1::BitMap> solved = PlanBitMap(measured, query);
  solve_seconds_.Observe(absl::ToDoubleSeconds(absl::Now() - begin));
  if (!solved.ok()) return solved.status();
  auto map = std::make_shared<const v1::BitMap>(*std::move(solved));
  // The answer is right whether or not it could be kept.
  const absl::Status put = registry_->PutBitMap(calibration, key, *map);
  if (!put.ok()) {
    spdlog::warn("bit map not stored: {}", std::string(put.message()));
  }
  return map;
}

v1::Statistics BitMapCache::statistics() const {
  v1::Statistics out;
  *out.mutable_memory() = memory_.statistics();
  *out.mutable_disk() = registry_->bit_map_statistics();
  out.mutable_disk()->set_hits(stored_);
  out.mutable_disk()->set_misses(solves_);
  out.set_solves(solves_);
  out.set_shared_solves(flights_.shared());
  return out;
}

void FillResponse(const v1::GetBitMapRequest& request,
                  const v1::GetBitMapResponse& answer,
                  v1::GetBitMapResponse* response) {
  if (request.known_etag() != answer.etag()) {
    *response = answer;
    return;
  }
  response->set_unchanged(true);
  response->set_etag(answer.etag());
  response->set_worse_than_uniform(answer.worse_than_uniform());
  if (answer.has_evaluation()) {
    *response->mutable_evaluation() = answer.evaluation();
  }
  if (answer.has_replacement()) {
    *response->mutable_replacement() = answer.replacement();
  }
}

grpc::ByteBuffer RespondTo(const v1::GetBitMapRequest& request,
                           const v1::GetBitMapResponse& answer) {
  v1::GetBitMapResponse response;
  FillResponse(request, answer, &response);
  return Serialize(response);
}

}  // namespace ratequant::allocation

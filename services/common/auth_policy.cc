#include "services/common/auth_policy.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/util/json_util.h"
#include "openssl/sha.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

constexpr size_t kShortestToken = 16;

// Looking a token up by its digest takes as long for a near miss as for any
// other.
std::string Digest(const std::string& token) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(),
         digest.data());
  return std::string(digest.begin(), digest.end());
}

absl::Status BadPolicy(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_AUTH_POLICY",
                   what);
}

absl::Status BadTokens(int line, absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_AUTH_TOKENS",
                   absl::StrCat("line ", line, " ", what));
}

absl::StatusOr<std::map<std::string, std::string>> ParseTokens(
    const std::string& text) {
  std::map<std::string, std::string> tokens;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() != 2) {
      return BadTokens(number, "isn't a name, a space and a token");
    }
    if (words[1].size() < kShortestToken) {
      return BadTokens(
          number, absl::StrCat("has a token of ", words[1].size(),
                               " characters; use at least ", kShortestToken));
    }
    if (!tokens.emplace(Digest(words[1]), words[0]).second) {
      return BadTokens(number, "has a token that stands there twice");
    }
  }
  return tokens;
}

bool IsSpiffePattern(absl::string_view id) {
  if (!absl::ConsumePrefix(&id, "spiffe://")) return false;
  const bool below = absl::ConsumeSuffix(&id, "/*");
  return !id.empty() && id[0] != '/' && (below || id.back() != '/') &&
         id.find('*') == absl::string_view::npos;
}

absl::Status CheckBinding(const v1::AccessBinding& binding,
                          const std::set<std::string>& tokens,
                          absl::string_view where) {
  if (!v1::AccessBinding::Role_IsValid(binding.role()) ||
      binding.role() == v1::AccessBinding::ROLE_UNSPECIFIED) {
    return BadPolicy(
        absl::StrCat(where, ".role isn't READER, CALIBRATOR or ADMIN"));
  }
  if (binding.spiffe_ids().empty() && binding.dns_names().empty() &&
      binding.tokens().empty()) {
    return BadPolicy(absl::StrCat(
        where, " names nobody; give spiffeIds, dnsNames or tokens"));
  }
  for (const std::string& id : binding.spiffe_ids()) {
    if (IsSpiffePattern(id)) continue;
    return BadPolicy(absl::StrCat(where, ".spiffeIds: '", id,
                                  "' isn't spiffe://DOMAIN/PATH, with or "
                                  "without /* at the end"));
  }
  for (const std::string& name : binding.tokens()) {
    if (tokens.contains(name)) continue;
    return BadPolicy(absl::StrCat(where, ".tokens: there is no token named '",
                                  name, "' in the token file"));
  }
  for (const std::string& prefix : binding.model_prefixes()) {
    if (!prefix.empty()) continue;
    return BadPolicy(absl::StrCat(
        where,
        ".modelPrefixes has an empty one; leave the list out for all "
        "models"));
  }
  return absl::OkStatus();
}

bool NamesSpiffeId(const v1::AccessBinding& binding, absl::string_view id) {
  return !id.empty() &&
         std::any_of(binding.spiffe_ids().begin(), binding.spiffe_ids().end(),
                     [id](absl::string_view named) {
                       return named == id ||
                              (absl::ConsumeSuffix(&named, "*") &&
                               absl::StartsWith(id, named));
                     });
}

template <typename List>
bool Names(const List& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

bool Covers(const v1::AccessBinding& binding, const std::string& model) {
  return binding.model_prefixes().empty() ||
         std::any_of(binding.model_prefixes().begin(),
                     binding.model_prefixes().end(),
                     [&model](const std::string& prefix) {
                       return absl::StartsWith(model, prefix);
                     });
}

}  // namespace

absl::StatusOr<AuthPolicy> AuthPolicy::Parse(const std::string& policy,
                                             const std::string& tokens) {
  AuthPolicy parsed;
  const auto read =
      google::protobuf::util::JsonStringToMessage(policy, &parsed.policy_);
  if (!read.ok()) {
    return BadPolicy(
        absl::string_view(read.message().data(), read.message().size()));
  }
  auto known = ParseTokens(tokens);
  if (!known.ok()) return known.status();
  parsed.tokens_ = *std::move(known);
  std::set<std::string> names;
  for (const auto& [digest, name] : parsed.tokens_) names.insert(name);
  for (int i = 0; i < parsed.policy_.bindings_size(); ++i) {
    absl::Status right = CheckBinding(parsed.policy_.bindings(i), names,
                                      absl::StrCat("bindings[", i, "]"));
    if (!right.ok()) return right;
  }
  return parsed;
}

absl::StatusOr<Caller> AuthPolicy::Identify(
    const Credentials& credentials) const {
  std::vector<std::string> names;
  if (!credentials.spiffe_id.empty()) names.push_back(credentials.spiffe_id);
  for (const std::string& name : credentials.dns_names) {
    names.push_back(absl::StrCat("dns:", name));
  }
  std::string token;
  if (credentials.has_token) {
    const auto known = tokens_.find(Digest(credentials.token));
    if (known == tokens_.end()) {
      return absl::UnauthenticatedError("a token that isn't known");
    }
    token = known->second;
    names.push_back(absl::StrCat("token:", token));
  }
  Caller caller;
  if (names.empty()) return caller;
  caller.authenticated = true;
  caller.name = absl::StrJoin(names, "+");
  for (const v1::AccessBinding& binding : policy_.bindings()) {
    const bool named =
        NamesSpiffeId(binding, credentials.spiffe_id) ||
        std::any_of(credentials.dns_names.begin(), credentials.dns_names.end(),
                    [&binding](const std::string& name) {
                      return Names(binding.dns_names(), name);
                    }) ||
        (!token.empty() && Names(binding.tokens(), token));
    if (named) caller.bindings.push_back(&binding);
  }
  return caller;
}

bool Allows(const Caller& caller, const AccessRule& rule,
            const std::vector<std::string>& models) {
  std::vector<const v1::AccessBinding*> able;
  for (const v1::AccessBinding* binding : caller.bindings) {
    if (binding->role() >= rule.role) able.push_back(binding);
  }
  switch (rule.scope) {
    case AccessScope::kAnyModel:
    case AccessScope::kStreamed:
      return !able.empty();
    case AccessScope::kAllModels:
      // What has no prefixes covers everything, also no model.
      return std::any_of(able.begin(), able.end(), [](const auto* binding) {
        return binding->model_prefixes().empty();
      });
    default:
      return !able.empty() &&
             std::all_of(models.begin(), models.end(),
                         [&able](const std::string& model) {
                           return std::any_of(able.begin(), able.end(),
                                              [&model](const auto* binding) {
                                                return Covers(*binding, model);
                                              });
                         });
  }
}

}  // namespace ratequant

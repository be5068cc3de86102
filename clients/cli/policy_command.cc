#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/bit_map_view.h"
#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/help.h"
#include "clients/cli/query_options.h"
#include "clients/cli/table.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

struct PolicyFlags {
  std::string name;
  PolicyOptions options;
  v1::Policy::Strategy strategy = v1::Policy::STRATEGY_UNSPECIFIED;
};

absl::Status Show(const absl::StatusOr<v1::NamedPolicy>& policy,
                  Session& session) {
  if (!policy.ok()) return policy.status();
  if (session.json) return session.PrintJson(*policy);
  session.Print(
      RenderPairs({{"policy", client::ResourceId(policy->name())},
                   {"content", PolicyText(policy->policy())},
                   {"stored", FormatTimestamp(policy->create_time())}},
                  session.terminal().out_style));
  return absl::OkStatus();
}

absl::Status CreatePolicy(const PolicyFlags& flags, Session& session) {
  v1::Policy policy;
  absl::Status filled = FillPolicy(flags.options, policy);
  if (!filled.ok()) return filled;
  policy.set_strategy(flags.strategy);
  return Show(session.client().CreatePolicy(flags.name, policy), session);
}

absl::Status ListPolicies(Session& session) {
  auto policies = session.client().ListPolicies();
  if (!policies.ok()) return policies.status();
  if (session.json) {
    v1::ListPoliciesResponse response;
    for (v1::NamedPolicy& policy : *policies) {
      *response.add_policies() = std::move(policy);
    }
    return session.PrintJson(response);
  }
  if (policies->empty()) {
    session.Print("no policy is stored; see: ratequant policy create --help\n");
    return absl::OkStatus();
  }
  Table table({{"POLICY"}, {"CONTENT"}, {"STORED"}});
  for (const v1::NamedPolicy& policy : *policies) {
    table.AddRow({client::ResourceId(policy.name()),
                  PolicyText(policy.policy()),
                  FormatTimestamp(policy.create_time())});
  }
  session.Print(table.Render(session.terminal().out_style));
  return absl::OkStatus();
}

absl::Status DeletePolicy(const std::string& name, Session& session) {
  absl::Status deleted = session.client().DeletePolicy(name);
  if (!deleted.ok()) return deleted;
  if (session.json) {
    v1::DeletePolicyRequest done;
    done.set_name(client::PolicyName(name));
    return session.PrintJson(done);
  }
  session.Print(absl::StrCat("deleted ", client::PolicyName(name), "\n"));
  return absl::OkStatus();
}

void AddName(CLI::App& verb, std::string* name) {
  verb.add_option("NAME", *name, "The policy's name")->required();
}

}  // namespace

void AddPolicyCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand(
      "policy", "Stores policies by name, for bitmap get --policy and others");
  verb->require_subcommand(1);
  SetHelp(*verb, {.examples = {"ratequant policy create --help",
                               "ratequant policy list"}});

  auto flags = std::make_shared<PolicyFlags>();
  CLI::App* create = verb->add_subcommand(
      "create", "Stores a policy; what a name stands for never changes");
  AddName(*create, &flags->name);
  AddPolicyOptions(*create, &flags->options);
  AddStrategyOption(*create, &flags->strategy);
  SetHelp(*create,
          {.examples = {"ratequant policy create edges-fp16 --rule "
                        "layer=0,width=16 --rule layer=35,width=16",
                        "ratequant policy create engine-a --widths 2,4,8 "
                        "--max-formats 2"}});
  create->callback([flags, &session] {
    session.command = [flags, &session] {
      return CreatePolicy(*flags, session);
    };
  });

  CLI::App* list = verb->add_subcommand("list", "Lists all policies by name");
  SetHelp(*list, {.examples = {"ratequant policy list --json"}});
  list->callback([&session] {
    session.command = [&session] { return ListPolicies(session); };
  });

  auto name = std::make_shared<std::string>();
  CLI::App* get = verb->add_subcommand(
      "get", "Shows a policy; with --json all of it, rules included");
  AddName(*get, name.get());
  SetHelp(*get, {.examples = {"ratequant policy get edges-fp16 --json"}});
  get->callback([name, &session] {
    session.command = [name, &session] {
      return Show(session.client().GetPolicy(*name), session);
    };
  });

  CLI::App* remove = verb->add_subcommand(
      "delete", "Deletes a policy; bit maps made with it stay");
  AddName(*remove, name.get());
  SetHelp(*remove, {.examples = {"ratequant policy delete edges-fp16"}});
  remove->callback([name, &session] {
    session.command = [name, &session] { return DeletePolicy(*name, session); };
  });
}

}  // namespace ratequant::cli

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/help.h"
#include "clients/cli/table.h"

namespace ratequant::cli {
namespace {

absl::Status Backup(const std::string& name, Session& session) {
  auto backup = session.client().CreateBackup(name);
  if (!backup.ok()) return backup.status();
  if (session.json) return session.PrintJson(*backup);
  session.Print(absl::StrCat("backed up to ", backup->folder(), ", ",
                             FormatCount(backup->bytes()), " bytes\n"));
  return absl::OkStatus();
}

std::string CacheText(const v1::CacheStatistics& cache) {
  return absl::StrCat(
      FormatCount(cache.entries()), " entries, ", FormatCount(cache.bytes()),
      " of ", FormatCount(cache.capacity_bytes()), " bytes; ",
      FormatCount(cache.hits()), " hits, ", FormatCount(cache.misses()),
      " misses, ", FormatCount(cache.evictions()), " evictions");
}

absl::Status Statistics(Session& session) {
  auto statistics = session.client().GetStatistics();
  if (!statistics.ok()) return statistics.status();
  if (session.json) return session.PrintJson(*statistics);
  session.Print(RenderPairs(
      {{"memory", CacheText(statistics->memory())},
       {"disk", CacheText(statistics->disk())},
       {"solves", absl::StrCat(FormatCount(statistics->solves()), ", and ",
                               FormatCount(statistics->shared_solves()),
                               " calls that waited for one")},
       {"watchers", absl::StrCat(FormatCount(statistics->watchers()), " open; ",
                                 FormatCount(statistics->coalesced_updates()),
                                 " updates skipped, ",
                                 FormatCount(statistics->slow_watchers_ended()),
                                 " ended for being slow")}},
      session.terminal().out_style));
  return absl::OkStatus();
}

}  // namespace

void AddAdminCommand(CLI::App& app, Session& session) {
  CLI::App* verb =
      app.add_subcommand("admin", "Backs up an allocator, shows its counters");
  verb->require_subcommand(1);
  SetHelp(*verb, {.examples = {"ratequant admin backup --help",
                               "ratequant admin stats --help"}});
  auto name = std::make_shared<std::string>();
  CLI::App* backup = verb->add_subcommand(
      "backup", "Copies the whole store while it is in use");
  backup
      ->add_option("NAME", *name,
                   "Name of the new folder below the allocator's --backup-dir")
      ->required();
  SetHelp(*backup,
          {.details = "ratequant-allocator restore makes a data folder from "
                      "it, ratequant-allocator inspect\nlooks into it.",
           .examples = {"ratequant admin backup monday"}});
  backup->callback([name, &session] {
    session.command = [name, &session] { return Backup(*name, session); };
  });
  CLI::App* stats = verb->add_subcommand(
      "stats", "Shows counters since the allocator started");
  SetHelp(*stats, {.examples = {"ratequant admin stats --json"}});
  stats->callback([&session] {
    session.command = [&session] { return Statistics(session); };
  });
}

}  // namespace ratequant::cli

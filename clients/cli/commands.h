#ifndef RATEQUANT_CLIENTS_CLI_COMMANDS_H_
#define RATEQUANT_CLIENTS_CLI_COMMANDS_H_

#include "CLI/CLI.hpp"
#include "clients/cli/session.h"

namespace ratequant::cli {

// Each adds a verb to `app`, whose callback sets `session.command`. `session`
// must outlive `app`.
void AddCalibrateCommand(CLI::App& app, Session& session);
void AddModelsCommand(CLI::App& app, Session& session);
void AddCalibrationsCommand(CLI::App& app, Session& session);
void AddBitMapCommand(CLI::App& app, Session& session);
void AddCurveCommand(CLI::App& app, Session& session);
void AddPlanCommand(CLI::App& app, Session& session);
void AddPolicyCommand(CLI::App& app, Session& session);
void AddReplayCommand(CLI::App& app, Session& session);
void AddWatchCommand(CLI::App& app, Session& session);
void AddEvaluationsCommand(CLI::App& app, Session& session);
void AddAdminCommand(CLI::App& app, Session& session);
void AddDoctorCommand(CLI::App& app, Session& session);
void AddCompletionCommand(CLI::App& app, Session& session);
void AddManCommand(CLI::App& app, Session& session);
void AddVersionCommand(CLI::App& app, Session& session);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_COMMANDS_H_

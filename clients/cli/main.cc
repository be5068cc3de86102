#include "clients/cli/command_line.h"
#include "clients/cli/text_style.h"

int main(int argc, char** argv) {
  return ratequant::cli::RunCommandLine(argc, argv,
                                        ratequant::cli::Terminal::Standard());
}

#ifndef RATEQUANT_CLIENTS_CLI_VALUE_CHECKS_H_
#define RATEQUANT_CLIENTS_CLI_VALUE_CHECKS_H_

#include <map>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace ratequant::cli {

// Checks of option values whose messages name the value and what is taken.

// A whole number from 0 to 2^32 - 1.
CLI::Validator WholeNumber();

// A decimal number; whether it makes sense is the server's to say.
CLI::Validator Number();

// A number of tokens above 0, as "4096" or "32k" (k is 1,024), which is turned
// into the plain number.
CLI::Validator TokenCount();

// An amount of memory, a number and KiB, MiB, GiB or TiB, such as "80GiB" or
// "1.5 TiB", which is turned into bytes. Units of 1,000 are refused: cards are
// sold by them but filled by the others.
CLI::Validator MemorySize();

// A finite number of seconds above 0.
CLI::Validator PositiveSeconds();

// What a flag may be in the environment or a file: true or false.
CLI::Validator TrueOrFalse();

// The name of a file that can be opened.
CLI::Validator ReadableFile();

// A time as "2026-11-24", "2026-11-24 08:04" or "2026-11-24T08:04:00Z",
// universal unless an offset says otherwise, which is turned into seconds since
// 1970.
CLI::Validator UniversalTime();

// One of the names of `choices`, which is turned into its number.
CLI::Validator Choice(const std::map<std::string, int>& choices);

// The names an option's Choice takes; none for an option without one.
std::vector<std::string> ChoicesOf(const CLI::Option& option);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_VALUE_CHECKS_H_

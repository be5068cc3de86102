#ifndef RATEQUANT_SERVICES_ALLOCATION_NOISE_H_
#define RATEQUANT_SERVICES_ALLOCATION_NOISE_H_

#include <vector>

#include "ratequant/v1/calibration.pb.h"
#include "services/allocation/choice_table.h"

namespace ratequant::allocation {

// What a map pays for: the sum of widths, or of page bytes.
enum class Cost { kCodeBits, kPageBytes };

// Which groups' choices the noise of the tables leaves open.
//
// A map that minimises the sum of E under a budget pays one price, loss per
// unit of cost, for the last unit of every group: no group gains more than it
// by choosing a dearer column, nor loses less by choosing a cheaper one. A
// group is within noise when at that price, with every c2 of its row moved by
// one standard error, all down, not at all or all up, another column than the
// map's is the best. An exact map may pay slightly unlike prices at its end;
// the price is then the mean of the largest gain and the smallest loss.
//
// `table` holds c2 values and `column` a column for each group. Empty when a
// table in use has no standard errors. Thread-safe.
std::vector<bool> GroupsWithinNoise(const v1::Calibration& calibration,
                                    const ChoiceTable& table,
                                    const std::vector<int>& column, Cost cost);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_NOISE_H_

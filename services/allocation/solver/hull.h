#ifndef RATEQUANT_SERVICES_ALLOCATION_SOLVER_HULL_H_
#define RATEQUANT_SERVICES_ALLOCATION_SOLVER_HULL_H_

#include <optional>
#include <queue>
#include <vector>

#include "services/allocation/solver/knapsack.h"

namespace ratequant::allocation {

// Indices of the choices on the lower convex hull of (cost, value), cheapest
// first: value falls strictly, and each step gains at most as much per cost as
// the one before. Points on a straight edge stay. Never empty.
std::vector<int> LowerHull(const std::vector<Choice>& choices);

// LowerHull for group after group: quick where the next group's choices are
// ordered by cost as the last one's were. Not thread-safe.
class HullBuilder {
 public:
  // Valid until the next call.
  const std::vector<int>& Build(const std::vector<Choice>& choices);

 private:
  void SortByCost(const std::vector<Choice>& choices);

  std::vector<int> order_;
  std::vector<int> hull_;
};

// Walks from the cheapest selection to the one of least value, always taking
// the step that gains most value per cost; equal slopes go to the group that
// comes first (paper Algorithm 2, over hulls).
class GreedyWalk {
 public:
  // A move of one group to the next point of its hull.
  struct Step {
    int group = 0;
    int to = 0;        // choice the group moves to
    double cost = 0;   // added, > 0
    double gain = 0;   // value removed, > 0
    double slope = 0;  // gain / cost
  };

  // Keeps a reference to `groups`, which must outlive it.
  explicit GreedyWalk(const std::vector<std::vector<Choice>>& groups);

  // Choice each group starts at: the cheapest, among equals the best.
  std::vector<int> Start() const;

  // The steepest step left, nullopt when there is none.
  std::optional<Step> Peek() const;

  // Takes the step Peek shows; its group's next one becomes available.
  void Take();

  // Gives up the step Peek shows and all later steps of its group.
  void Drop();

 private:
  struct Entry {
    double slope;
    int group;
    // The heap's top is its largest: steepest first, then the first group.
    bool operator<(const Entry& other) const {
      return slope != other.slope ? slope < other.slope : group > other.group;
    }
  };

  Step NextStep(int group) const;

  const std::vector<std::vector<Choice>>& groups_;
  std::vector<std::vector<int>> hulls_;
  std::vector<int> position_;  // [groups], index into the hull
  std::priority_queue<Entry> heap_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SOLVER_HULL_H_

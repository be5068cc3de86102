#ifndef RATEQUANT_CLIENTS_CLI_PLOT_H_
#define RATEQUANT_CLIENTS_CLI_PLOT_H_

#include <string>
#include <vector>

#include "clients/cli/text_style.h"

namespace ratequant::cli {

struct PlotPoint {
  double x = 0;
  double y = 0;
};

// A line of a plot.
struct PlotSeries {
  std::string name;
  char mark = '*';
  Ink ink = Ink::kPlain;
  // Ascending in x. Points whose y isn't above zero are left out: the y axis is
  // logarithmic.
  std::vector<PlotPoint> points = {};
  // Holds each point's y until the next, instead of drawing a straight line.
  bool steps = false;
};

struct PlotSpec {
  std::string title;
  std::string x_label;
  int columns = 72;  // of the drawing, without the axis
  int rows = 14;
};

// Draws the series over a linear x and a logarithmic y axis; where they meet,
// the one that comes first is on top. Empty when there are fewer than two
// points.
std::string RenderPlot(const PlotSpec& spec,
                       const std::vector<PlotSeries>& series,
                       const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_PLOT_H_

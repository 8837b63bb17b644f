/* SPDX-License-Identifier: MIT */
#include "tools/metric_text.h"

#include <string.h>

#include "test.h"

TEST(metric_sums_are_found_by_whole_names)
{
	static const char text[] = "x_total 1\n"
				   "x 2\n"
				   "# HELP x 100\n"
				   "x{a=\"1 2\",b=\"}\"} 4\n"
				   "x{a=\"3\"} 8.5\n"
				   "yx 16\n"
				   "z 1e3\n"
				   "last 7";

	CHECK(metric_sum(text, "x_total") == 1);
	CHECK(metric_sum(text, "x") == 14.5);
	CHECK(metric_sum(text, "x{a=\"3\"}") == 8.5);
	CHECK(metric_sum(text, "z") == 1000);
	CHECK(metric_sum(text, "last") == 7);
	CHECK(metric_sum(text, "x_tot") == 0);
	CHECK(metric_sum(text, "none") == 0);
	CHECK(metric_sum("", "x") == 0);
}

TEST(metric_labels_are_escaped_or_empty)
{
	static const char text[] = "# TYPE info gauge\n"
				   "info{version=\"1\x1b[2J\",other=\"x\"} 1\n"
				   "info_more{version=\"2\"} 1\n";
	char out[32];

	metric_label(text, "info", "version", out, sizeof(out));
	CHECK_STR(out, "1\\x1b[2J");
	metric_label(text, "info_more", "version", out, sizeof(out));
	CHECK_STR(out, "2");
	metric_label(text, "info", "other", out, sizeof(out));
	CHECK_STR(out, "");
	metric_label(text, "none", "version", out, sizeof(out));
	CHECK_STR(out, "");
	CHECK(metric_is_there(text, "info_more{version=\"2\"}"));
	CHECK(!metric_is_there(text, "info_more{version=\"1\"}"));
	CHECK(!metric_is_there(text, "TYPE"));
}

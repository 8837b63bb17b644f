/* SPDX-License-Identifier: MIT */
#pragma once

/* Reads what GET /metrics answers: the text format of Prometheus, as the daemon writes it. */

#include "base/base.h"

/**
 * metric_sum() - add up all series of a metric
 * @text:   Prometheus text, NUL-terminated
 * @name:   name without labels, or one series with its labels as written
 *
 * Return:  the sum; 0 when there is none.
 * Thread:  any.
 */
double metric_sum(const char *text, const char *name);

/* Whether there is a series, its labels as written. */
bool metric_is_there(const char *text, const char *series);

/* The value of a label in the first series of @name, escaped; "" when there is none. */
void metric_label(const char *text, const char *name, const char *label, char *out, size_t cap);

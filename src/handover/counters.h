/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A worker's counters as a record and back, by the names that metrics_each() gives them. Whoever
 * reads them may have another number of workers: what counts is the sum.
 */

#include "containers/mem.h"
#include "model/metrics.h"
#include "record.pb-c.h"

/* The record, made in @a. NULL: no memory. */
Record__Counters *counters_to_record(const struct metrics *m, struct arena *a);

/* Adds them up; those that this version doesn't know are lost. */
void counters_from_record(struct metrics *m, const Record__Counters *s);

/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of history share: history.c (stores, and what they keep), history_begin.c (what
 * members get of it). Nobody else includes it.
 */

#include "channel/history.h"

/* Drops all that is past its bounds. Without any lock. */
void history_trim(struct history *h, struct history_store *s, uint64_t now_ns);

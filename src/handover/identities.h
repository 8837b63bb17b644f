/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Client ids that somebody may come back with, as records and back: see worker/registry. They come
 * before the connections that have them.
 */

#include "record.pb-c.h"
#include "worker/hub.h"

/* Points into @e, and to lists in @a. Return: NULL without memory. */
Record__Identity *identity_to_record(const struct registry_entry *e, struct arena *a);

/**
 * identity_from_record() - an id is known again
 * @h: of the worker that tells of those that don't come back in time
 * @s: whatever may stand in it
 *
 * Return: 0 | RESTORE_E_UNFIT | -ENOMEM.
 */
int identity_from_record(struct hub *h, const Record__Identity *s) WB_NODISCARD;

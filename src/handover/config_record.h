/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The settings of a process and the files that they name, for the next one: it goes on with
 * them when its own cannot be used, rather than end the clients that were handed to it.
 */

#include "conn/policy.h"
#include "wire/record.h"

/* Adds the record. Return: 0 | -errno. */
int config_record_put(struct record_writer *out, const struct policy *policy) WB_NODISCARD;

/**
 * config_record_find() - a configuration out of records
 * @ret_files: closed; for policy_new()
 *
 * Return:  0 | -ENOENT there is none that can be used, or no connection that it is for |
 *          -ENOMEM.
 * Owns:    the caller: *@ret by config_unref(), *@ret_files by file_set_fini().
 */
int config_record_find(const uint8_t *records, size_t n, struct config **ret,
		       struct file_set *ret_files) WB_NODISCARD;

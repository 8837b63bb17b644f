/* SPDX-License-Identifier: MIT */
#include "model/close_codes.h"

static const struct close_code rows[] = {
#define CLOSE_CODE(name, counter, by, client, reason) \
	{WS_CODE_##name, CLOSE_BY_##by, CLOSE_RETURN_##client, reason},
#include "model/close_codes_table.h"
};

/* What a peer sends of its own making (3000 to 4999) is its wish like 1000, whatever it means. */
static const struct close_code unknown = {0, CLOSE_BY_WISH, CLOSE_RETURN_LATER, ""};

const struct close_code *close_code_find(uint16_t code)
{
	/* A dozen rows, and once in the life of a connection: nothing to search by halves. */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].code == code)
			return &rows[i];
	return &unknown;
}

size_t close_codes_all(const struct close_code **ret)
{
	*ret = rows;
	return ARRAY_LEN(rows);
}

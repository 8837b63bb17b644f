/* SPDX-License-Identifier: MIT */
#include "wire/msg_caps.h"

#include <string.h>

#include "message.pb-c.h"

/* frame and spool take a CompressionType for a codec's number. */
#define SAME_NUMBER(NAME, name, number) \
	static_assert((int)ZIP_##NAME == (int)WEBSOCKET__COMPRESSION_TYPE__##NAME, #name);
ZIP_CODECS(SAME_NUMBER)

static const struct {
	unsigned bit;
	const char *name;
} cap[] = {
#define CAP_ROW(NAME, word, number) {MSG_CAP_##NAME, #word},
	MSG_CAPS(CAP_ROW)};

unsigned msg_caps_parse(char *const *names, size_t n)
{
	unsigned caps = 0;

	/* A word that this version doesn't know is one that a later client has: no error. */
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < ARRAY_LEN(cap); k++)
			if (strcmp(names[i], cap[k].name) == 0)
				caps |= cap[k].bit;
	if (caps & MSG_CAP_RESUME)
		caps |= MSG_CAP_ONCE;
	/* Who sends again until it is published has to be told that it is. */
	if (caps & MSG_CAP_ONCE)
		caps |= MSG_CAP_ACK;
	return caps;
}

size_t msg_caps_names(unsigned caps, const char **ret_names, size_t n)
{
	size_t count = 0;

	for (size_t k = 0; k < ARRAY_LEN(cap) && count < n; k++)
		if (caps & cap[k].bit)
			ret_names[count++] = cap[k].name;
	return count;
}

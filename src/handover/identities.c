/* SPDX-License-Identifier: MIT */
#include "handover/identities.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "handover/record_ids.h"

static ProtobufCBinaryData text_of(const char *text)
{
	return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

/* Channels that it is away from, and when that is told: times go on from process to process. */
static bool save_absences(Record__Identity *r, const struct registry_entry *e, struct arena *a)
{
	size_t n = 0;

	for (const struct registry_absence *away = e->absences; away; away = away->next)
		n++;
	if (n == 0)
		return true;
	r->absent = arena_alloc(a, n * sizeof(*r->absent));
	r->due_ns = arena_alloc(a, n * sizeof(*r->due_ns));
	if (!r->absent || !r->due_ns)
		return false;
	for (const struct registry_absence *away = e->absences; away; away = away->next) {
		r->absent[r->n_absent++] = text_of(away->channel);
		r->due_ns[r->n_due_ns++] = away->due_ns;
	}
	return true;
}

Record__Identity *identity_to_record(const struct registry_entry *e, struct arena *a)
{
	Record__Identity *r = arena_alloc(a, sizeof(*r));

	if (!r)
		return NULL;
	*r = (Record__Identity)RECORD__IDENTITY__INIT;
	r->id = (ProtobufCBinaryData){sizeof(e->id), (uint8_t *)(uintptr_t)e->id};
	r->serial = e->serial;
	r->issued = e->issued;
	r->brought = e->brought;
	r->attempt = e->attempt;
	r->is_subject = e->is_subject;
	r->ended_ns = e->ended_ns;
	r->user_id = text_of(e->user_id);
	return save_absences(r, e, a) ? r : NULL;
}

/* With its NUL. False: no text that could be here. */
static bool text_from(const ProtobufCBinaryData *s, char *out, size_t max)
{
	if (s->len > max || memchr(s->data ? s->data : (const uint8_t *)"", 0, s->len) ||
	    !utf8_valid(s->len ? (const char *)s->data : "", s->len))
		return false;
	if (s->len > 0)
		memcpy(out, s->data, s->len);
	out[s->len] = '\0';
	return true;
}

/* Its absences, and who sees to them. */
static int restore_absences(struct hub *h, struct registry_entry *e, const Record__Identity *s)
{
	char channel[DIRECTORY_NAME_MAX + 1];

	for (size_t i = 0; i < s->n_absent; i++) {
		if (!text_from(&s->absent[i], channel, DIRECTORY_NAME_MAX))
			return RESTORE_E_UNFIT;
		if (!registry_entry_add_absence(e, channel, s->due_ns[i]))
			return -ENOMEM;
		hub_restore_absence(h, e->id, e->user_id, channel, s->due_ns[i]);
	}
	return 0;
}

int identity_from_record(struct hub *h, const Record__Identity *s)
{
	char user_id[GRANT_USER_MAX + 1];
	struct registry_entry *e;
	int r;

	if (s->id.len != sizeof(e->id) || s->n_absent != s->n_due_ns ||
	    !text_from(&s->user_id, user_id, GRANT_USER_MAX) || !grant_is_user_id(user_id))
		return RESTORE_E_UNFIT;
	/* Its connection, if that is still there, comes behind it, and takes it then. */
	e = registry_entry_new(s->id.data, user_id);
	if (!e)
		return -ENOMEM;
	e->serial = s->serial;
	e->issued = s->issued;
	e->brought = s->brought;
	e->attempt = s->attempt;
	e->is_subject = s->is_subject;
	e->ended_ns = s->ended_ns;
	r = restore_absences(h, e, s);
	/*
	 * What is known of it counts, also where not all of it was told well: a token that was
	 * brought must not be good again.
	 */
	registry_restore(&h->shared->registry, e);
	return r;
}

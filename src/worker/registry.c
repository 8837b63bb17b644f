/* SPDX-License-Identifier: MIT */
#include "worker/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The server draws ids at random, and tells them from others by a signature: nobody chooses. */
static uint64_t hash_of(const uint8_t id[16])
{
	uint64_t hash;

	memcpy(&hash, id, sizeof(hash));
	return hash;
}

static struct registry_part *part_lock(struct registry *r, const uint8_t id[16])
{
	struct registry_part *part = &r->part[id[15] % REGISTRY_PARTS];

	pthread_mutex_lock(&part->lock);
	return part;
}

static void part_unlock(struct registry_part *part)
{
	pthread_mutex_unlock(&part->lock);
}

int registry_init(struct registry *r, const struct resume_key *key, uint64_t now_ns)
{
	int error = key ? 0 : resume_key_draw(&r->key);

	if (error)
		return error;
	if (key)
		r->key = *key;
	r->is_key_drawn = !key;
	r->started_ns = now_ns;
	for (size_t i = 0; i < ARRAY_LEN(r->part); i++) {
		(void)pthread_mutex_init(&r->part[i].lock, NULL); /* cannot fail */
		table_init(&r->part[i].ids);
		list_init(&r->part[i].ended);
	}
	r->is_init = true;
	return 0;
}

void registry_inherit(struct registry *r, const uint8_t key[RESUME_KEY_BYTES], uint64_t started_ns)
{
	if (r->is_key_drawn)
		memcpy(r->key.byte, key, sizeof(r->key.byte));
	r->started_ns = started_ns;
}

void registry_configure(struct registry *r, uint64_t window_ns, uint64_t max_ended)
{
	atomic_store_explicit(&r->window_ns, window_ns, memory_order_relaxed);
	atomic_store_explicit(&r->max_ended, max_ended / REGISTRY_PARTS + 1, memory_order_relaxed);
}

/* ------------------------------------------------------------------------ one entry */

/* Under the part's lock, as what follows. NULL: it is not known. */
static struct registry_entry *entry_find(const struct registry_part *part, const uint8_t id[16])
{
	struct table_node *node = table_find(&part->ids, hash_of(id));

	for (; node; node = table_find_next(node)) {
		struct registry_entry *e = CONTAINER_OF(node, struct registry_entry, node);

		if (memcmp(e->id, id, sizeof(e->id)) == 0)
			return e;
	}
	return NULL;
}

static void entry_free(struct registry_part *part, struct registry_entry *e)
{
	if (!list_is_empty(&e->ended_node))
		part->n_ended--;
	list_del(&e->ended_node);
	table_remove(&part->ids, &e->node);
	while (e->absences) {
		struct registry_absence *a = e->absences;

		e->absences = a->next;
		free(a);
	}
	free(e);
}

static bool is_forgotten(const struct registry *r, const struct registry_entry *e, uint64_t now_ns)
{
	return !e->conn && now_ns - MIN(e->ended_ns, now_ns) >
				   atomic_load_explicit(&r->window_ns, memory_order_relaxed);
}

/* Those that ended first go first, whoever they are. */
static void part_trim(const struct registry *r, struct registry_part *part, uint64_t now_ns)
{
	size_t max = atomic_load_explicit(&r->max_ended, memory_order_relaxed);
	struct list *first;

	while ((first = list_first(&part->ended))) {
		struct registry_entry *e = CONTAINER_OF(first, struct registry_entry, ended_node);

		if (part->n_ended <= max && !is_forgotten(r, e, now_ns))
			break;
		entry_free(part, e);
	}
}

static void entry_own(struct registry_part *part, struct registry_entry *e, struct conn *c,
		      unsigned worker, uint64_t serial)
{
	if (!list_is_empty(&e->ended_node))
		part->n_ended--;
	list_del(&e->ended_node);
	e->conn = c;
	e->worker = worker;
	e->serial = serial;
}

static void entry_end(struct registry_part *part, struct registry_entry *e, uint64_t now_ns)
{
	e->conn = NULL;
	e->ended_ns = now_ns;
	list_add_tail(&part->ended, &e->ended_node);
	part->n_ended++;
}

struct registry_entry *registry_entry_new(const uint8_t id[16], const char *user_id)
{
	size_t n = strlen(user_id) + 1;
	struct registry_entry *e = calloc(1, sizeof(*e) + n);

	if (!e)
		return NULL;
	list_init(&e->ended_node);
	memcpy(e->id, id, sizeof(e->id));
	memcpy(e->user_id, user_id, n);
	return e;
}

bool registry_entry_add_absence(struct registry_entry *e, const char *channel, uint64_t due_ns)
{
	size_t n = strlen(channel) + 1;
	struct registry_absence *a = malloc(sizeof(*a) + n);

	if (!a)
		return false;
	a->due_ns = due_ns;
	memcpy(a->channel, channel, n);
	a->next = e->absences;
	e->absences = a;
	return true;
}

/* ---------------------------------------------------------------------- who it is */

int registry_enter(struct registry *r, const uint8_t id[16], uint64_t serial, struct conn *c,
		   unsigned worker, const char *user_id, bool is_subject)
{
	struct registry_part *part = part_lock(r, id);
	struct registry_entry *e = entry_find(part, id);

	if (!e) {
		e = registry_entry_new(id, user_id);
		if (e) {
			e->is_subject = is_subject;
			table_insert(&part->ids, &e->node, hash_of(id));
			entry_own(part, e, c, worker, serial);
		}
	}
	part_unlock(part);
	return e ? 0 : -ENOMEM;
}

size_t registry_issue(struct registry *r, const uint8_t id[16], char out[RESUME_TOKEN_TEXT])
{
	struct resume_token t = {0};
	struct registry_part *part = part_lock(r, id);
	struct registry_entry *e = entry_find(part, id);

	memcpy(t.id, id, sizeof(t.id));
	if (e) {
		t.number = ++e->issued;
		t.is_subject = e->is_subject;
		memcpy(t.user_id, e->user_id, strlen(e->user_id) + 1);
	}
	part_unlock(part);
	return e ? resume_token_write(&r->key, &t, out) : 0;
}

static bool is_newer(const struct registry_entry *e, uint64_t number, uint32_t attempt)
{
	return number > e->brought || (number == e->brought && attempt > e->attempt);
}

bool registry_claim(struct registry *r, const struct resume_token *t, uint32_t attempt,
		    uint64_t now_ns, uint64_t *ret_serial)
{
	struct registry_part *part = part_lock(r, t->id);
	struct registry_entry *e = entry_find(part, t->id);
	bool is_good = false;

	if (e && is_forgotten(r, e, now_ns)) {
		entry_free(part, e);
		e = NULL;
	}
	/* What another process, or this one before it crashed, has said of it nobody knows. */
	if (!e &&
	    now_ns - r->started_ns <= atomic_load_explicit(&r->window_ns, memory_order_relaxed)) {
		e = registry_entry_new(t->id, t->user_id);
		if (e) {
			e->is_subject = t->is_subject;
			table_insert(&part->ids, &e->node, hash_of(t->id));
			entry_end(part, e, now_ns);
		}
	}
	if (e && is_newer(e, t->number, attempt)) {
		is_good = true;
		e->brought = t->number;
		e->attempt = attempt;
		e->issued = MAX(e->issued, t->number);
		*ret_serial = e->serial;
	}
	part_unlock(part);
	return is_good;
}

enum registry_taking registry_take(struct registry *r, const struct resume_token *t,
				   uint32_t attempt, uint64_t serial, struct conn *c,
				   unsigned worker, unsigned *ret_worker)
{
	struct registry_part *part = part_lock(r, t->id);
	struct registry_entry *e = entry_find(part, t->id);
	enum registry_taking taking = REGISTRY_TAKEN;

	/* It was the greatest when it was claimed: another one is greater. */
	if (!e || e->brought != t->number || e->attempt != attempt) {
		taking = REGISTRY_SUPERSEDED;
	} else if (e->conn) {
		*ret_worker = e->worker;
		taking = REGISTRY_BUSY;
	} else {
		entry_own(part, e, c, worker, serial);
	}
	part_unlock(part);
	return taking;
}

struct conn *registry_conn_for(struct registry *r, const struct resume_token *t, uint32_t attempt,
			       unsigned worker)
{
	struct registry_part *part = part_lock(r, t->id);
	struct registry_entry *e = entry_find(part, t->id);
	bool is_newest = e && e->brought == t->number && e->attempt == attempt;
	struct conn *c = is_newest && e->worker == worker ? e->conn : NULL;

	part_unlock(part);
	return c;
}

void registry_leave(struct registry *r, const uint8_t id[16], const struct conn *c, uint64_t now_ns)
{
	struct registry_part *part = part_lock(r, id);
	struct registry_entry *e = entry_find(part, id);

	if (e && e->conn == c) {
		entry_end(part, e, now_ns);
		part_trim(r, part, now_ns);
	}
	part_unlock(part);
}

/* --------------------------------------------------------------- whether it is missed */

bool registry_begin_absence(struct registry *r, const uint8_t id[16], const char *channel,
			    uint64_t due_ns)
{
	struct registry_part *part = part_lock(r, id);
	struct registry_entry *e = entry_find(part, id);
	bool is_begun = e && registry_entry_add_absence(e, channel, due_ns);

	part_unlock(part);
	return is_begun;
}

bool registry_end_absence(struct registry *r, const uint8_t id[16], const char *channel,
			  uint64_t due_ns)
{
	struct registry_part *part = part_lock(r, id);
	struct registry_entry *e = entry_find(part, id);
	struct registry_absence **at = e ? &e->absences : NULL, *found = NULL;

	while (at && *at && strcmp((*at)->channel, channel) != 0)
		at = &(*at)->next;
	if (at && *at && (!due_ns || (*at)->due_ns == due_ns)) {
		found = *at;
		*at = found->next;
	}
	part_unlock(part);
	free(found);
	return found;
}

/* ----------------------------------------------------------------------- all of them */

void registry_expire(struct registry *r, uint64_t now_ns)
{
	for (size_t i = 0; i < ARRAY_LEN(r->part); i++) {
		pthread_mutex_lock(&r->part[i].lock);
		part_trim(r, &r->part[i], now_ns);
		pthread_mutex_unlock(&r->part[i].lock);
	}
}

void registry_restore(struct registry *r, struct registry_entry *e)
{
	struct registry_part *part = part_lock(r, e->id);
	struct registry_entry *before = entry_find(part, e->id);

	/* A record that stands twice: the later counts. */
	if (before)
		entry_free(part, before);
	table_insert(&part->ids, &e->node, hash_of(e->id));
	entry_end(part, e, e->ended_ns);
	part_unlock(part);
}

bool registry_adopt(struct registry *r, const uint8_t id[16], uint64_t serial, struct conn *c,
		    unsigned worker)
{
	struct registry_part *part = part_lock(r, id);
	struct registry_entry *e = entry_find(part, id);

	if (e)
		entry_own(part, e, c, worker, serial);
	part_unlock(part);
	return e;
}

int registry_each(const struct registry *r, int (*fn)(void *ctx, const struct registry_entry *e),
		  void *ctx)
{
	int result = 0;

	for (size_t i = 0; i < ARRAY_LEN(r->part) && result == 0; i++) {
		const struct table *ids = &r->part[i].ids;
		struct table_node *node = table_next(ids, NULL);

		for (; node && result == 0; node = table_next(ids, node))
			result = fn(ctx, CONTAINER_OF(node, struct registry_entry, node));
	}
	return result;
}

void registry_fini(struct registry *r)
{
	for (size_t i = 0; r->is_init && i < ARRAY_LEN(r->part); i++) {
		struct registry_part *part = &r->part[i];
		struct table_node *node;

		while ((node = table_next(&part->ids, NULL)))
			entry_free(part, CONTAINER_OF(node, struct registry_entry, node));
		table_fini(&part->ids);
		(void)pthread_mutex_destroy(&part->lock);
	}
	r->is_init = false;
}

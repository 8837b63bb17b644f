/* SPDX-License-Identifier: MIT */
/*
 * Tokens: three parts as they would come, and the same bytes as header and claims under a right
 * signature, so that what stands behind that is reached; then patterns against channels.
 */
#include "fuzz.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "wire/token.h"

#define SECRET "0123456789abcdef0123456789abcdef"
#define NOW 1700000000ULL

static struct token_keys *keys;

static void make_keys(void)
{
	struct file_set files = {.is_closed = true};
	char why[TOKEN_KEYS_WHY_MAX];

	WB_ASSERT(file_set_add(&files, "secret", SECRET, strlen(SECRET)) == 0);
	WB_ASSERT(token_keys_new("secret", &files, &keys, why) == 0);
	file_set_fini(&files);
}

static void check(const char *p, size_t n)
{
	struct grant *g = NULL;
	char *copy = fuzz_copy(p, n);
	/* By its length, so that a seed shows the same each time. */
	const struct token_rules rules = {n % 2 ? "a" : "", n % 3 ? "" : "i"};
	enum token_result r = token_verify(keys, &rules, copy, n, NOW, &g);

	free(copy);
	WB_ASSERT((r == TOKEN_OK) == (g != NULL));
	WB_ASSERT(token_result_text(r)[0]);
	if (!g)
		return;
	WB_ASSERT(strlen(g->user_id) > 0 && strlen(g->user_id) <= GRANT_USER_MAX);
	WB_ASSERT(strcmp(g->user_id, "system") != 0 && g->expires_s > NOW);
	for (size_t i = 0; i < g->n_patterns; i++)
		if (!strchr(g->pattern[i], '*'))
			WB_ASSERT(grant_allows(g, g->pattern[i]));
	WB_ASSERT(grant_allows(g, "a/b/c") || !g->any_channel);
	free(g);
}

static void append_base64url(struct buf *b, const uint8_t *p, size_t n)
{
	char *text = malloc(4 * (n / 3 + 1) + 1);
	int len;

	WB_ASSERT(text != NULL);
	len = EVP_EncodeBlock((uint8_t *)text, p, (int)n);
	while (len > 0 && text[len - 1] == '=')
		len--;
	for (int i = 0; i < len; i++)
		text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
	fuzz_append(b, text, (size_t)len);
	free(text);
}

/* The input's first byte says where its header ends and its claims begin. */
static void check_signed(const uint8_t *p, size_t n)
{
	static const char usual[] = "{\"alg\":\"HS256\"}";
	size_t cut = n > 0 ? MIN((size_t)p[0], n - 1) : 0;
	struct buf b = {0};
	unsigned mac_n = 32;
	uint8_t mac[32];

	if (n == 0)
		return;
	if (cut > 0)
		append_base64url(&b, p + 1, cut);
	else
		append_base64url(&b, (const uint8_t *)usual, strlen(usual));
	fuzz_append(&b, ".", 1);
	append_base64url(&b, p + 1 + cut, n - 1 - cut);
	WB_ASSERT(HMAC(EVP_sha256(), SECRET, 32, b.data, b.len, mac, &mac_n) != NULL);
	fuzz_append(&b, ".", 1);
	append_base64url(&b, mac, sizeof(mac));
	check((const char *)b.data, b.len);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!keys)
		make_keys();
	check((const char *)data, size);
	check_signed(data, size);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* jwt_key_file: its words, and which file is to blame. */
#include "wire/token_keys.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>

#include "base/file.h"
#include "key-file.h"
#include "test.h"

#define SECRET "0123456789abcdef0123456789abcdef"

TEST(token_keys_that_are_no_good_are_named)
{
	EVP_PKEY *weak = EVP_RSA_gen(1024), *curve = EVP_EC_gen("P-384");
	struct key_file files[] = {key_file_of("short", 5), key_file_of("", 0),
				   key_file_of_pkey(weak, false), key_file_of_pkey(curve, false),
				   key_file_of("-----BEGIN PUBLIC KEY-----\nno\n", 30)};
	struct token_keys *keys = NULL;
	char why[TOKEN_KEYS_WHY_MAX], both[200];

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CHECK_EQ(token_keys_new(files[i].path, file_read, &keys, why), -EINVAL);
		CHECK(strncmp(why, files[i].path, strlen(files[i].path)) == 0);
	}
	CHECK_EQ(token_keys_new("/no/such/file", file_read, &keys, why), -EINVAL);
	CHECK_STR(why, "/no/such/file: No such file or directory");
	CHECK_EQ(token_keys_new("  ", file_read, &keys, why), -EINVAL);
	CHECK_EQ(write(files[0].fd, SECRET, 32), 32);
	snprintf(both, sizeof(both), "a=%s a=%s", files[0].path, files[0].path);
	CHECK_EQ(token_keys_new(both, file_read, &keys, why), -EINVAL);
	CHECK(strstr(why, "another key has this kid"));
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		close(files[i].fd);
	EVP_PKEY_free(weak);
	EVP_PKEY_free(curve);
}

/* Files that exist in this test alone: their name is what they hold, but for these. */
static int read_name(const char *path, void *out, size_t cap, size_t *ret_n)
{
	size_t n = strlen(path);

	if (strcmp(path, "/large") == 0)
		return FILE_E_TOO_LONG;
	if (strcmp(path, "/secret") == 0)
		return -EACCES;
	CHECK(n <= cap);
	memcpy(out, path, n);
	*ret_n = n;
	return 0;
}

static struct token_keys *check_words(const char *files, const char *wrong)
{
	struct token_keys *keys = NULL;
	char why[TOKEN_KEYS_WHY_MAX];
	int r = token_keys_new(files, read_name, &keys, why);

	CHECK_EQ(r, wrong ? -EINVAL : 0);
	CHECK_EQ(r == 0, keys != NULL);
	if (wrong)
		CHECK_STR(why, wrong);
	return keys;
}

TEST(token_keys_have_names_and_files)
{
	struct token_keys *keys = check_words(
		"a=" SECRET ", /path=with=" SECRET "  b=x=" SECRET " =" SECRET "1", NULL);

	CHECK_EQ(keys->n, 4);
	CHECK_STR(keys->at[0].kid, "a");
	CHECK_STR(keys->at[1].kid, "");
	CHECK_STR(keys->at[2].kid, "b");
	CHECK_STR(keys->at[3].kid, "");
	CHECK_EQ(keys->at[2].key.secret_n, strlen("x=" SECRET));
	token_keys_free(keys);
}

TEST(token_keys_have_bounds)
{
	char kid[TOKEN_KID_MAX + 1], text[40 * (TOKEN_KEYS_MAX + 1)] = "", long_kid[400], why[400];

	memset(kid, 'k', sizeof(kid) - 1);
	kid[sizeof(kid) - 1] = '\0';
	snprintf(long_kid, sizeof(long_kid), "%s=%s", kid, SECRET);
	check_words(long_kid, SECRET ": its kid is too long");
	snprintf(long_kid, sizeof(long_kid), "%s=%s", kid + 1, SECRET);
	token_keys_free(check_words(long_kid, NULL));
	for (int i = 0; i < TOKEN_KEYS_MAX; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%c=%s ", 'a' + i,
			 SECRET);
	token_keys_free(check_words(text, NULL));
	strcat(text, "z=" SECRET);
	snprintf(why, sizeof(why), "z=%s: more than 16 keys", SECRET);
	check_words(text, why);
	check_words("/large", "/large: is too long");
	check_words("k=/secret", "/secret: Permission denied");
}

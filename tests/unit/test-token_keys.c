/* SPDX-License-Identifier: MIT */
/* jwt_key_file: its words, and which file is to blame. */
#include "wire/token_keys.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>

#include "key-file.h"
#include "test.h"

#define SECRET "0123456789abcdef0123456789abcdef"

static int new_of(const char *files, struct token_keys **ret, char *why)
{
	struct file_set set = {0};
	int r = token_keys_new(files, &set, ret, why);

	file_set_fini(&set);
	return r;
}

TEST(token_keys_that_are_no_good_are_named)
{
	EVP_PKEY *weak = EVP_RSA_gen(1024), *curve = EVP_EC_gen("P-384");
	struct key_file files[] = {key_file_of("short", 5), key_file_of("", 0),
				   key_file_of_pkey(weak, false), key_file_of_pkey(curve, false),
				   key_file_of("-----BEGIN PUBLIC KEY-----\nno\n", 30)};
	struct token_keys *keys = NULL;
	char why[TOKEN_KEYS_WHY_MAX], both[200];

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CHECK_EQ(new_of(files[i].path, &keys, why), -EINVAL);
		CHECK(strncmp(why, files[i].path, strlen(files[i].path)) == 0);
	}
	CHECK_EQ(new_of("/no/such/file", &keys, why), -EINVAL);
	CHECK_STR(why, "/no/such/file: No such file or directory");
	CHECK_EQ(new_of("  ", &keys, why), -EINVAL);
	CHECK_EQ(write(files[0].fd, SECRET, 32), 32);
	snprintf(both, sizeof(both), "a=%s a=%s", files[0].path, files[0].path);
	CHECK_EQ(new_of(both, &keys, why), -EINVAL);
	CHECK(strstr(why, "another key has this kid"));
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		close(files[i].fd);
	EVP_PKEY_free(weak);
	EVP_PKEY_free(curve);
}

/* Files that exist in this test alone: their name is what they hold. */
static void add_files(struct file_set *set)
{
	static const char *const names[] = {
		SECRET,        SECRET "1",        "/" SECRET,           "x" SECRET,
		"/a=b" SECRET, "/there=/" SECRET, "/path=with=" SECRET,
	};

	set->is_closed = true;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		CHECK_EQ(file_set_add(set, names[i], names[i], strlen(names[i])), 0);
}

static struct token_keys *check_words(const char *files, const char *wrong)
{
	struct token_keys *keys = NULL;
	char why[TOKEN_KEYS_WHY_MAX];
	struct file_set set = {0};
	int r;

	add_files(&set);
	r = token_keys_new(files, &set, &keys, why);
	file_set_fini(&set);
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
	CHECK_STR(keys->at[2].kid, "b=x");
	CHECK_STR(keys->at[3].kid, "");
	CHECK_EQ(keys->at[2].key.secret_n, strlen(SECRET));
	token_keys_free(keys);
}

/* Key ids as services make them: any character may be in one. */
TEST(token_keys_have_names_of_any_kind)
{
	static const struct {
		const char *word, *kid, *file;
	} row[] = {
		{"abcd+/efgh==/" SECRET, "abcd+/efgh=", "/" SECRET},
		{"/ab=c==/" SECRET, "/ab=c=", "/" SECRET},
		{"kid=x" SECRET, "kid", "x" SECRET},
		{"https://id.example/keys/1=/" SECRET, "https://id.example/keys/1", "/" SECRET},
		{"a%20b%2Cc%3d%zz%=/" SECRET, "a b,c=%zz%", "/" SECRET},
		{"%00=/" SECRET, "%00", "/" SECRET},
		{"/a=b" SECRET, "", "/a=b" SECRET},
		{"/there=/" SECRET, "", "/there=/" SECRET},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct token_keys *keys = check_words(row[i].word, NULL);

		CHECK_EQ(keys->n, 1);
		CHECK_STR(keys->at[0].kid, row[i].kid);
		CHECK_STR(keys->at[0].file, row[i].file);
		token_keys_free(keys);
	}
}

TEST(token_keys_of_one_file_are_all_taken)
{
	EVP_PKEY *pkeys[] = {EVP_RSA_gen(2048), EVP_EC_gen("P-256")};
	struct key_file f = key_file_of_pkey(pkeys[0], false);
	BIO *bio = BIO_new(BIO_s_mem());
	struct token_keys *keys = NULL;
	char word[100], why[TOKEN_KEYS_WHY_MAX], *text;
	long n;

	CHECK_EQ(PEM_write_bio_PUBKEY(bio, pkeys[1]), 1);
	n = BIO_get_mem_data(bio, &text);
	CHECK_EQ(write(f.fd, text, (size_t)n), n);
	snprintf(word, sizeof(word), "k=%s", f.path);
	CHECK_EQ(new_of(word, &keys, why), 0);
	CHECK_EQ(keys->n, 2);
	CHECK_STR(token_key_algorithm(&keys->at[0].key), "RS256");
	CHECK_STR(token_key_algorithm(&keys->at[1].key), "ES256");
	CHECK_STR(keys->at[1].kid, "k");
	token_keys_free(keys);
	/* One that is cut short: what can't be read isn't passed over. */
	CHECK_EQ(write(f.fd, text, (size_t)n / 2), n / 2);
	CHECK_EQ(new_of(word, &keys, why), -EINVAL);
	CHECK(strstr(why, "no PEM key"));
	BIO_free(bio);
	close(f.fd);
	for (size_t i = 0; i < ARRAY_LEN(pkeys); i++)
		EVP_PKEY_free(pkeys[i]);
}

TEST(token_keys_have_bounds)
{
	char kid[TOKEN_KID_MAX + 1], text[40 * (TOKEN_KEYS_MAX + 1)] = "", long_kid[400],
								 why[TOKEN_KEYS_WHY_MAX];

	memset(kid, 'k', sizeof(kid) - 1);
	kid[sizeof(kid) - 1] = '\0';
	snprintf(long_kid, sizeof(long_kid), "%s=%s", kid, SECRET);
	check_words(long_kid, SECRET ": its kid is too long");
	snprintf(long_kid, sizeof(long_kid), "%s=%s", kid + 1, SECRET);
	token_keys_free(check_words(long_kid, NULL));
	for (int i = 0; i < TOKEN_KEYS_MAX; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%c=%s ", '@' + i,
			 SECRET);
	token_keys_free(check_words(text, NULL));
	strcat(text, "z=" SECRET);
	snprintf(why, sizeof(why), "%s: more than 32 keys in all", SECRET);
	check_words(text, why);
	check_words("k=/none", "/none: No such file or directory");
}

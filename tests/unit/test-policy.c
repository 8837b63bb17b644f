/* SPDX-License-Identifier: MIT */
#include "conn/policy.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/x509.h>

#include "key-file.h"
#include "rig.h"

static struct policy *with_origins(const char *list)
{
	char line[300];

	snprintf(line, sizeof(line), "allowed_origins = %s\n", list);
	return rig_policy(line);
}

static bool allows(const struct policy *a, const char *origin)
{
	return policy_allows_origin(a, (struct http_text){origin, strlen(origin)});
}

TEST(policy_allows_the_origins_of_the_list)
{
	static const struct {
		const char *list, *yes, *no;
	} row[] = {
		{"*", "https://anywhere.example", NULL},
		{"https://example.org", "https://example.org", "http://example.org"},
		{"https://example.org", "HTTPS://Example.ORG", "https://example.org:8443"},
		{"https://example.org", "https://example.org:443", "https://www.example.org"},
		{"https://example.org:443", "https://example.org", "https://example.org:80"},
		{"https://example.org:8443", "https://example.org:8443", "https://example.org"},
		{"http://localhost:3000", "http://localhost:3000", "http://localhost:3001"},
		{"example.org", "http://example.org:8080", "http://example.org.evil.net"},
		{"*.example.org", "https://www.example.org", "https://example.org"},
		{"*.example.org", "https://a.b.example.org:1", "https://example.org.evil.net"},
		{"*.example.org", "http://x.example.org", "https://evilexample.org"},
		{"*.example.org", "http://x.example.org", "https://evil.net/.example.org"},
		{"https://*.example.org", "https://x.example.org", "http://x.example.org"},
		{"https://a.org https://b.org", "https://b.org", "https://c.org"},
		{"https://a.org,https://b.org", "https://b.org", "https://a.org,https://b.org"},
		{"https://example.org", "https://example.org", "null"},
		{"https://example.org", "https://example.org", ""},
		{"https://example.org", "https://example.org", "example.org"},
		{"null", "null", "https://null"},
		{"https://[::1]:8080", "https://[::1]:8080", "https://[::1]"},
		{"http://[2001:db8::1]", "http://[2001:DB8::1]:80", "http://[2001:db8::2]"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct policy *a = with_origins(row[i].list);

		if (!allows(a, row[i].yes))
			fail_msg("%s does not allow %s", row[i].list, row[i].yes);
		if (row[i].no && allows(a, row[i].no))
			fail_msg("%s allows %s", row[i].list, row[i].no);
		CHECK(policy_allows_origin(a, (struct http_text){0})); /* no browser */
		policy_unref(a);
	}
}

TEST(policy_trusts_the_proxies_of_the_list)
{
	struct policy *a = rig_policy("trusted_proxies = 10.0.0.0/8 2001:db8::/32, 192.0.2.1\n");
	uint8_t ip[IP_BYTES];

	CHECK_EQ(a->n_trusted, 3);
	CHECK_EQ(ip_parse("10.200.0.1", 10, ip), 0);
	CHECK(policy_trusts(a, ip));
	CHECK_EQ(ip_parse("192.0.2.1", 9, ip), 0);
	CHECK(policy_trusts(a, ip));
	CHECK_EQ(ip_parse("192.0.2.2", 9, ip), 0);
	CHECK(!policy_trusts(a, ip));
	policy_unref(a);
	a = rig_policy("");
	CHECK(!policy_trusts(a, ip));
	policy_unref(a);
}

/* What is wrong with a configuration that names files. */
static void check_blame(const char *lines, const char *blamed, const char *words)
{
	struct config *config = rig_config(lines);
	struct policy *a = NULL;
	char why[POLICY_WHY_MAX];
	const char *got = NULL;

	CHECK_EQ(policy_new(config, NULL, NULL, &a, &got, why), -EINVAL);
	CHECK_STR(got, blamed);
	if (!strstr(why, words))
		fail_msg("%s has no %s", why, words);
	config_unref(config);
}

TEST(policy_names_the_key_that_is_to_blame)
{
	check_blame("tls_port = 0\n", "tls_certificate", "needs a certificate");
	check_blame("tls_port = 0\ntls_certificate = /no/such\n", "tls_certificate",
		    "/no/such: No such file");
	check_blame("tls_port = 0\ntls_certificate = /dev/null\n", "tls_certificate",
		    "/dev/null: ");
	check_blame("tls_port = 0\ntls_certificate = /a /b\ntls_key = /c\n", "tls_key",
		    "1 keys for 2 certificates");
	check_blame("auth = jwt\n", "jwt_key_file", "names no file");
	check_blame("auth = jwt\njwt_key_file = /no/such\n", "jwt_key_file", "/no/such: No such");
}

/* A certificate that signs itself, with its key behind it or without. */
static struct key_file certificate_file(bool has_key)
{
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	BIO *bio = BIO_new(BIO_s_mem());
	X509 *x = X509_new();
	struct key_file f;
	char *text;
	long n;

	X509_gmtime_adj(X509_getm_notBefore(x), 0);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, pkey);
	CHECK(X509_sign(x, pkey, EVP_sha256()) > 0);
	CHECK_EQ(PEM_write_bio_X509(bio, x), 1);
	CHECK(!has_key || PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) == 1);
	n = BIO_get_mem_data(bio, &text);
	f = key_file_of(text, (size_t)n);
	BIO_free(bio);
	X509_free(x);
	EVP_PKEY_free(pkey);
	return f;
}

static void check_tls_blame(const struct key_file *certificate, const char *lines,
			    const char *blamed, const char *words)
{
	char text[300];

	snprintf(text, sizeof(text), "tls_port = 0\ntls_certificate = %s\n%s\n", certificate->path,
		 lines);
	check_blame(text, blamed, words);
}

/* By what went wrong, and not by a name: one file may stand at two keys. */
TEST(policy_names_the_key_whose_file_is_wrong)
{
	struct key_file whole = certificate_file(true), bare = certificate_file(false);
	char line[100];

	check_tls_blame(&whole, "tls_key = /no/such", "tls_key", "/no/such: No such file");
	check_tls_blame(&whole, "tls_client_ca = /no/such", "tls_client_ca", "/no/such: No such");
	check_tls_blame(&whole, "tls_client_ca = /dev/null", "tls_client_ca", "/dev/null: ");
	check_tls_blame(&bare, "", "tls_certificate", bare.path);
	snprintf(line, sizeof(line), "tls_key = %s", bare.path);
	check_tls_blame(&bare, line, "tls_key", bare.path);
	snprintf(line, sizeof(line), "tls_key = %s0", bare.path);
	check_tls_blame(&bare, line, "tls_key", "0: No such file");
	close(whole.fd);
	close(bare.fd);
}

/* SPDX-License-Identifier: MIT */
/*
 * replay NAME FOLDER: runs the harness that it is linked with on every file of the
 * folder, with any compiler. One line in the end, "ok N - NAME: 23 seeds", N from
 * REPLAY_NUMBER. A harness that finds something does not come that far: then the file
 * is named on standard error, where ASAN_OPTIONS and UBSAN_OPTIONS have abort_on_error=1
 * or an assertion failed. With REPLAY_VERBOSE each file is named before it runs.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define ALARM_SECONDS 60 /* for one file, under any sanitizer */

static char current[4096]; /* the file that runs */

/* Runs in a signal handler: nothing but write(). */
static void say_current(void)
{
	static const char before[] = "# failed on: ";

	if (!current[0])
		return;
	(void)!write(STDERR_FILENO, before, sizeof(before) - 1);
	(void)!write(STDERR_FILENO, current, strlen(current));
	(void)!write(STDERR_FILENO, "\n", 1);
}

static void on_signal(int number)
{
	say_current();
	signal(number, SIG_DFL);
	raise(number);
}

static int is_file(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int run_file(const char *path)
{
	struct buf b = {0};
	FILE *f = fopen(path, "rb");
	uint8_t *exact;
	size_t n;

	if (!f)
		return -errno;
	do {
		if (buf_reserve(&b, 65536, BUF_NO_LIMIT))
			abort();
		n = fread(b.data + b.len, 1, 65536, f);
		b.len += n;
	} while (n > 0);
	fclose(f);
	exact = fuzz_copy(b.data, b.len);
	n = b.len;
	buf_fini(&b);
	alarm(ALARM_SECONDS);
	LLVMFuzzerTestOneInput(exact, n);
	alarm(0);
	free(exact);
	return 0;
}

static int run_folder(const char *folder, int count, struct dirent **entries)
{
	int n = 0;

	for (int i = 0; i < count; i++) {
		int r;

		snprintf(current, sizeof(current), "%s/%s", folder, entries[i]->d_name);
		if (getenv("REPLAY_VERBOSE"))
			fprintf(stderr, "# %s\n", current);
		r = run_file(current);
		if (r == 0)
			n++;
		else
			fprintf(stderr, "# %s: %s\n", current, strerror(-r));
		free(entries[i]);
	}
	current[0] = '\0';
	free(entries);
	return n;
}

int main(int argc, char **argv)
{
	const char *number = getenv("REPLAY_NUMBER");
	struct dirent **entries = NULL;
	int count, n;

	if (argc != 3) {
		fprintf(stderr, "usage: %s NAME FOLDER\n", argv[0]);
		return 2;
	}
	signal(SIGABRT, on_signal);
	signal(SIGALRM, on_signal);
	count = scandir(argv[2], &entries, is_file, alphasort);
	n = count > 0 ? run_folder(argv[2], count, entries) : 0;
	if (n == 0 || n != count) {
		fprintf(stderr, "# %s: %d of %d files ran\n", argv[2], n, count);
		return 1;
	}
	printf("ok %s - %s: %d seeds\n", number ? number : "1", argv[1], n);
	return 0;
}

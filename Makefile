# SPDX-License-Identifier: MIT
#
# wsbind. `make help` lists the targets. Everything that is built lies under
# build/<variant>/; a variant is "release", or what SAN= says.
#
#   make SAN=address,undefined check-integration     V=1 shows commands

SAN    ?=
comma  := ,
VARIANT := $(if $(SAN),$(subst $(comma),-,$(SAN)),release)
O      ?= build/$(VARIANT)
CC     ?= cc
CFLAGS ?= -O2 -g
Q      := $(if $(V),,@)
say     = $(if $(V),,@printf '  %-4s %s\n' '$(1)' '$(2)')

prefix     ?= /usr/local
bindir     ?= $(prefix)/bin
mandir     ?= $(prefix)/share/man
sysconfdir ?= /etc
unitdir    ?= $(if $(filter /usr,$(prefix)),/usr/lib,/etc)/systemd/system
catalogdir ?= $(if $(filter /usr,$(prefix)),/usr/lib,/etc)/systemd/catalog
bashdir    ?= $(prefix)/share/bash-completion/completions
zshdir     ?= $(prefix)/share/zsh/$(if $(filter /usr,$(prefix)),vendor-completions,site-functions)
docdir     ?= $(prefix)/share/doc/wsbind

# The version is said in one place. In a Debian package's own tree that is debian/.
CHANGELOG  := $(firstword $(wildcard systemd/debian/changelog debian/changelog))
VERSION    := $(shell sed -n '1s/^wsbind (\([^-)]*\)-.*/\1/p' $(CHANGELOG))

# The packages that are needed, in one place. BUILD: to build; CHECK: to test, lint and try.
PACKAGES_BUILD := gcc make pkg-config libc6-dev libwslay-dev libprotobuf-c-dev protobuf-c-compiler \
	protobuf-compiler libsystemd-dev libzstd-dev zlib1g-dev libdeflate-dev liblz4-dev libssl-dev \
	libmicrohttpd-dev libinih-dev libjansson-dev uthash-dev
PACKAGES_MACHINE := systemd dbus systemd-container util-linux iproute2
PACKAGES_DEB := build-essential debhelper dpkg-dev fakeroot lintian
PACKAGES_CHECK := libcmocka-dev python3 python3-websockets python3-protobuf python3-psutil nodejs \
	node-ws mandoc prometheus clang-format git spin zsh apparmor mmdebstrap openssl nginx haproxy \
	$(PACKAGES_MACHINE) $(PACKAGES_DEB)
PACKAGES_COVERAGE := gcovr
PACKAGES_ANALYZE := clang-tidy
PACKAGES_GUARD := valgrind libcmocka-dev python3
PACKAGES_BENCH := python3 openssl nodejs node-ws nginx libnginx-mod-nchan nats-server libwebsockets-dev \
	golang-go golang-github-gorilla-websocket-dev $(PACKAGES_MACHINE)
PACKAGES_PRISTINE := git mmdebstrap util-linux
PACKAGES_FUZZ := clang libclang-rt-dev libcmocka-dev

# --------------------------------------------------------------------------- flags

LIBS_PC := libprotobuf-c libsystemd libzstd zlib libdeflate liblz4 libssl libcrypto jansson libmicrohttpd \
	inih
PC_CFLAGS := $(shell pkg-config --cflags $(LIBS_PC) 2>/dev/null)
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wvla -Wformat=2 -Wundef -Wcast-qual -Werror
HARDEN := $(if $(SAN),,-D_FORTIFY_SOURCE=2 -fstack-protector-strong)
ALL_CFLAGS = -std=gnu17 -Isrc -I$(O)/gen -D_GNU_SOURCE -DHASH_NONFATAL_OOM=1 -pthread -fPIE \
	$(WARN) -MMD -MP $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer) $(HARDEN) $(CFLAGS) \
	$(PC_CFLAGS)
ALL_LDFLAGS = -pthread -pie -Wl,-z,relro,-z,now $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)
LIBS := -lwslay $(shell pkg-config --libs $(LIBS_PC) 2>/dev/null) # Debian's wslay has no .pc file

SRC   := $(sort $(wildcard src/*.c src/*/*.c))
TESTS := $(sort $(wildcard tests/unit/*.c))
GEN   := $(O)/gen/message.pb-c $(O)/gen/record.pb-c
OBJ   := $(SRC:%.c=$(O)/%.o) $(GEN:%=%.o)
TOBJ  := $(TESTS:%.c=$(O)/%.o)
MAIN  := $(O)/src/main.o

.PHONY: all compile-commands deps deps-build run check check-unit check-integration check-conformance check-fuzz \
	check-model check-systemd check-debian13 bench bench-guard fuzz fuzzers soak coverage analyze lint format man-lint config-template install uninstall deb clean help dist
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

all: $(O)/wsbind

# -------------------------------------------------------------------------- building

$(O)/gen/%.proto: proto/%.proto proto/for-protobuf-c.sed
	@mkdir -p $(@D)
	$(Q)sed -f proto/for-protobuf-c.sed $< >$@

$(O)/gen/%.pb-c.c $(O)/gen/%.pb-c.h &: $(O)/gen/%.proto
	$(call say,GEN,$@)
	$(Q)protoc --proto_path=$(O)/gen --c_out=$(O)/gen $<

$(GEN:%=%.o): %.o: %.c
	$(call say,CC,$<)
	$(Q)$(CC) $(filter-out -Wcast-qual,$(ALL_CFLAGS)) -c -o $@ $<

$(O)/%.o: %.c | $(GEN:%=%.h)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Stacks stay small (sanitizers blow them up, so without them only).
$(O)/src/%.o: WARN += $(if $(SAN),,-Wframe-larger-than=16384)
# The one pair of stand-alone fences orders atomics only: see its design note.
$(O)/src/io/reactor.o: WARN += $(if $(findstring thread,$(SAN)),-Wno-tsan)
$(O)/src/base/version.o: ALL_CFLAGS += -DWB_VERSION='"$(VERSION)"'
$(O)/src/base/version.o: $(CHANGELOG)
# Lengths from the wire: no silent conversion.
$(O)/src/wire/%.o: WARN += -Wconversion

$(O)/wsbind: $(OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# tests/unit/fault.c counts these calls and makes them fail.
WRAP_FLAG := -Wl,--wrap=
WRAP := $(addprefix $(WRAP_FLAG),malloc calloc realloc aligned_alloc strdup strndup mmap accept4 \
	epoll_ctl epoll_wait recv send sendmsg write fallocate eventfd open openat socket epoll_create1 signalfd \
	listen bind pthread_create)

$(O)/unit: $(filter-out $(MAIN),$(OBJ)) $(TOBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAP) -o $@ $^ $(LIBS) -lcmocka

# The daemon itself, whose calls tests/integration/55-faults.py makes fail.
$(O)/wsbind-faults: $(OBJ) $(O)/tests/unit/fault.o
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAP) -o $@ $^ $(LIBS)

# The harnesses of tests/fuzz: with replay.c by any compiler, with libFuzzer by clang.
FUZZ := $(patsubst tests/fuzz/fuzz-%.c,%,$(sort $(wildcard tests/fuzz/fuzz-*.c)))
FOBJ := $(FUZZ:%=$(O)/tests/fuzz/fuzz-%.o) $(O)/tests/fuzz/replay.o
FUZZED := $(filter-out $(MAIN) $(addprefix $(O)/src/,server/% client/% tools/%),$(OBJ)) $(O)/src/client/ws_url.o \
	$(O)/tests/unit/rig.o

$(O)/tests/fuzz/%.o: ALL_CFLAGS += -Itests/unit

$(O)/fuzz-%: $(O)/tests/fuzz/fuzz-%.o $(O)/tests/fuzz/replay.o $(FUZZED)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

$(O)/libfuzzer-%: $(O)/tests/fuzz/fuzz-%.o $(FUZZED)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS) -lcmocka

# What bench/guard.py counts instructions of.
$(O)/bench/%.o: ALL_CFLAGS += -Itests/unit

$(O)/guard: $(O)/bench/guard.o $(FUZZED)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

# Kept, though only pattern rules name them: what is built stays built.
.SECONDARY: $(FOBJ) $(O)/bench/guard.o $(O)/bench/nats.o $(GEN:%=%.c) $(GEN:%=%.h) \
	$(GEN:%.pb-c=%.proto)

-include $(O)/bench/guard.d $(O)/bench/nats.d $(OBJ:.o=.d) $(TOBJ:.o=.d) $(FOBJ:.o=.d)

# For clangd and its like: what make would run to compile each file, as JSON. The one thing
# that lies outside of build/, since that is where editors look.
COMPILED = $(O)/wsbind $(O)/unit $(O)/guard $(O)/bench/nats $(FUZZ:%=$(O)/fuzz-%)

compile-commands:
	@$(MAKE) --no-print-directory -nB V=1 $(COMPILED) | \
		awk -v folder='$(CURDIR)' -f tests/lint/compile-commands.awk

compile_commands.json: $(GEN:%=%.h) FORCE
	$(call say,GEN,$@)
	@$(MAKE) --no-print-directory compile-commands >$@

# -------------------------------------------------------------------------- packages

# Installs what is missing, and only then: without a network nothing is asked of it.
define install_packages
@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | \
	grep -q 'ok installed' || echo $$p; done); \
if [ -n "$$missing" ]; then \
	echo "  APT " $$missing; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get -qq update && \
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $$sudo apt-get -qq install -y \
		--no-install-recommends $$missing >/dev/null; \
fi
endef

deps-build:
	$(call install_packages,$(PACKAGES_BUILD))

deps: deps-build
	$(call install_packages,$(PACKAGES_CHECK))

# ------------------------------------------------------------------------------- run

run: deps-build
	@$(MAKE) --no-print-directory -s all
	@tests/demo.sh $(O)/wsbind

# ----------------------------------------------------------------------------- tests

UNIT ?=
TEST ?=
CASE ?=
PYTHON := /usr/bin/python3
SLOW = $(if $(findstring thread,$(SAN)),6,$(if $(SAN),3,1))

# Everything. The tools are installed first; each part prints its own count, and the sum ends it.
check: deps
	@tests/check.sh $(MAKE)

# The second pass hands everything over to another process wherever a test waits.
HANDED_OVER := conn conn-output conn-timers hub protocol protocol-channels slow_consumer limits regressions \
	channel-model frame_variant

check-unit: $(O)/unit
	$(Q)$(O)/unit $(UNIT)
	$(Q)$(if $(UNIT),,WB_HANDOVER=1 $(O)/unit $(HANDED_OVER))

check-integration: $(O)/wsbind $(O)/wsbind-faults
	$(Q)WSBIND=$(O)/wsbind WSBIND_TEST_SLOW=$(SLOW) $(PYTHON) tests/integration/run.py $(TEST)

check-conformance: $(O)/wsbind
	$(Q)WSBIND=$(O)/wsbind WSBIND_TEST_SLOW=$(SLOW) $(PYTHON) tests/conformance/run.py \
		$(if $(CASE),-c $(CASE))

# Every harness on its seeds; UBSan's word counts as a failure.
check-fuzz: $(FUZZ:%=$(O)/fuzz-%)
	$(Q)n=0; bad=0; for name in $(FUZZ); do n=$$((n + 1)); \
		ASAN_OPTIONS=abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1 \
		REPLAY_NUMBER=$$n \
			$(O)/fuzz-$$name fuzz-$$name tests/fuzz/seeds/$$name || \
			{ echo "not ok $$n - fuzz-$$name"; bad=1; }; \
	done; exit $$bad

# The lock-free parts as models, every interleaving of them; and with each mistake built in.
MODEL ?=

check-model:
	$(Q)CC='$(CC)' tests/model/run.sh $(MODEL)

# Real machines, booted by systemd: what an administrator does, as it is installed.
MACHINE ?=

check-systemd: $(O)/wsbind
	$(Q)BUILD=$(O) MAKE=$(MAKE) tests/systemd/run.sh $(MACHINE)

# All of it once more in a root of Debian 13 in which nothing is installed: not a part of check.
check-debian13:
	$(call install_packages,$(PACKAGES_PRISTINE))
	$(Q)tests/pristine.sh trixie

# Looks for more, for T seconds. New inputs stay in build/fuzz/corpus, crashes beside it: what
# was fixed goes into tests/fuzz/seeds/NAME by hand.
NAME ?= $(firstword $(FUZZ))
T    ?= 60
FUZZ_MAKE = $(MAKE) --no-print-directory O=build/fuzz SAN=address,undefined CC=clang \
	CFLAGS='-O1 -g -fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined'
FUZZ_DICT = $(wildcard tests/fuzz/$(NAME).dict)

fuzzers: deps-build
	$(call install_packages,$(PACKAGES_FUZZ))
	$(Q)$(FUZZ_MAKE) $(FUZZ:%=build/fuzz/libfuzzer-%)

fuzz: deps-build
	$(call install_packages,$(PACKAGES_FUZZ))
	$(Q)$(FUZZ_MAKE) build/fuzz/libfuzzer-$(NAME)
	@mkdir -p build/fuzz/corpus/$(NAME) build/fuzz/crashes
	build/fuzz/libfuzzer-$(NAME) -max_total_time=$(T) -max_len=$(or $(LEN),4096) -timeout=20 \
		-rss_limit_mb=1024 -print_final_stats=1 $(FUZZ_DICT:%=-dict=%) \
		-artifact_prefix=build/fuzz/crashes/$(NAME)- build/fuzz/corpus/$(NAME) \
		tests/fuzz/seeds/$(NAME)

# Hours of everything that clients do (T=3600 is one): not a part of check.
SEED ?=

SOAK ?=

soak: $(O)/wsbind $(if $(SAN),,$(O)/in-use.so) deps
	WSBIND=$(O)/wsbind WSBIND_TEST_SLOW=$(SLOW) $(PYTHON) tests/soak/soak.py --time $(T) \
		$(SEED:%=--seed %) $(if $(SAN),,--in-use $(O)/in-use.so) --out $(O)/soak.jsonl $(SOAK)

$(O)/in-use.so: tests/soak/in-use.c
	$(call say,LD,$@)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -O2 -fPIC -shared -pthread -o $@ $<

# Mistakes that clang's analyzer finds by following paths: ten minutes, and not a word.
analyze: deps-build compile_commands.json
	$(call install_packages,$(PACKAGES_ANALYZE))
	$(Q)printf '%s\n' $(SRC) | xargs -P$$(nproc) -n2 clang-tidy --quiet -p .

# Lines that unit tests, fuzz seeds, the conformance suite and real clients reach, by folder.
COVERAGE_MAKE = $(MAKE) --no-print-directory O=build/coverage LDFLAGS=--coverage \
	CFLAGS='-Og -g --coverage -fprofile-update=atomic'

coverage: deps
	$(call install_packages,$(PACKAGES_COVERAGE))
	@find build/coverage -name '*.gcda' -delete 2>/dev/null || true
	$(Q)$(COVERAGE_MAKE) check-unit check-fuzz check-conformance check-integration
	gcovr --root . --filter src/ --object-directory build/coverage --exclude-unreachable-branches \
		--html-details build/coverage/index.html --print-summary

# Servers to compare with, and the benchmark in NATS' protocol.
BENCH_PROGRAMS := $(addprefix $(O)/bench/,floor lws go-hub nats crowd collide)

$(O)/bench/floor: PEER_LIBS := -lcrypto -pthread
$(O)/bench/lws: PEER_LIBS := -lwebsockets
$(O)/bench/floor $(O)/bench/lws: $(O)/bench/%: bench/servers/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) -O2 -g -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -o $@ $< $(PEER_LIBS)

# What hostile.py attacks with.
$(O)/bench/crowd $(O)/bench/collide: $(O)/bench/%: bench/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) -O2 -g -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -o $@ $<

$(O)/bench/go-hub: bench/servers/go-hub.go
	@mkdir -p $(@D)
	$(call say,GO,$@)
	$(Q)GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(CURDIR)/build/go go build -o $@ $<

$(O)/bench/nats: $(O)/bench/nats.o $(filter-out $(MAIN),$(OBJ))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# Beside the floor and peers: an hour and more. ONLY names some of them, BENCH has options for these.
BENCHES := fanout echo handshakes tls idle-memory stalled-readers ingest flush-delay restart hostile
ONLY ?= $(BENCHES)
BENCH ?=

bench: deps-build
	$(call install_packages,$(PACKAGES_BENCH))
	$(Q)$(MAKE) --no-print-directory -s -j$$(nproc) all $(BENCH_PROGRAMS)
	$(Q)set -e; for b in $(ONLY); do echo "== bench/$$b.py"; \
		BUILD=$(O) WSBIND=$(O)/wsbind MAKE=$(MAKE) $(PYTHON) bench/$$b.py --json $(O)/bench/$$b.json $(BENCH); \
	done

# Instructions for each delivery, echo, handshake: not more than were kept. UPDATE=1 keeps new ones.
UPDATE ?=

bench-guard: deps-build
	$(call install_packages,$(PACKAGES_GUARD))
	$(Q)$(MAKE) --no-print-directory -s -j$$(nproc) $(O)/guard
	$(Q)CC='$(CC)' $(PYTHON) bench/guard.py $(O)/guard $(if $(UPDATE),--update)

lint: $(O)/wsbind
	$(Q)CLANG_FORMAT_VERSION=$(CLANG_FORMAT_VERSION) tests/lint/run.sh $(O)/wsbind

# Other versions lay some lines out in another way.
CLANG_FORMAT_VERSION := 14

format:
	$(Q)clang-format --version | grep -q 'version $(CLANG_FORMAT_VERSION)\.' || { echo \
		'make format: the code is laid out by clang-format $(CLANG_FORMAT_VERSION)' >&2; exit 1; }
	$(Q)clang-format -i $(filter-out %_keys.h %_table.h %_events.h,$(wildcard src/*.[ch] src/*/*.[ch])) \
		$(wildcard tests/unit/*.[ch] tests/fuzz/*.[ch] bench/*.c bench/servers/*.c)
	$(Q)tests/lint/reading.py mend

# The commented configuration file is made from the table of keys; `make lint` compares.
config-template: $(O)/wsbind
	$(Q)$(O)/wsbind check-config --template >conf/wsbind.conf

# --------------------------------------------------------------------------- install

DEST = $(DESTDIR)
FORCE:
UNITS = systemd/wsbind.service systemd/wsbind.socket

# Instances are the service once more, with a file and folders of their own.
INSTANCE = s|^Description=.*|&, instance %i|; s|wsbind server$$|& --config $(sysconfdir)/wsbind/%i.conf|; \
	s|wsbind reload$$|& --config $(sysconfdir)/wsbind/%i.conf|; s|^\(.*Directory=wsbind\)$$|\1-%i|; \
	s|^WantedBy=.*|&\nDefaultInstance=main|

$(O)/systemd/%: systemd/% FORCE # its text depends on bindir
	@mkdir -p $(@D)
	$(Q)sed 's|@bindir@|$(bindir)|g' $< >$@

$(O)/systemd/wsbind@.service: $(O)/systemd/wsbind.service
	$(Q)sed '$(INSTANCE)' $< >$@


install: $(O)/wsbind $(UNITS:%=$(O)/%) $(O)/systemd/wsbind@.service
	install -D -m 755 $(O)/wsbind $(DEST)$(bindir)/wsbind
	[ -e $(DEST)$(sysconfdir)/wsbind.conf ] || \
		install -D -m 644 conf/wsbind.conf $(DEST)$(sysconfdir)/wsbind.conf
	install -d $(DEST)$(sysconfdir)/wsbind.conf.d $(DEST)$(sysconfdir)/wsbind
	install -D -m 644 -t $(DEST)$(unitdir) $(UNITS:%=$(O)/%) $(O)/systemd/wsbind@.service
	install -D -m 644 -t $(DEST)$(catalogdir) systemd/wsbind.catalog
	install -D -m 644 conf/completion/wsbind.bash $(DEST)$(bashdir)/wsbind
	install -D -m 644 conf/completion/_wsbind $(DEST)$(zshdir)/_wsbind
	install -D -m 644 -t $(DEST)$(docdir)/examples systemd/examples/*
	for page in man/*.[1-9]; do \
		install -D -m 644 -t $(DEST)$(mandir)/man$${page##*.} $$page; done

uninstall:
	rm -f $(DEST)$(bindir)/wsbind $(UNITS:systemd/%=$(DEST)$(unitdir)/%) \
		$(DEST)$(unitdir)/wsbind@.service $(DEST)$(catalogdir)/wsbind.catalog \
		$(DEST)$(bashdir)/wsbind $(DEST)$(zshdir)/_wsbind
	rm -rf $(DEST)$(docdir)
	for page in man/*.[1-9]; do rm -f $(DEST)$(mandir)/man$${page##*.}/$${page##*/}; done
	@echo "left in place: $(DEST)$(sysconfdir)/wsbind.conf and its folders"

# A Debian package, in build/deb. What dpkg-buildpackage wants to find as debian/ lies in
# systemd/debian, and is put there in a copy of the sources.
DEB = build/deb/wsbind-$(VERSION)

deb:
	$(call install_packages,$(PACKAGES_BUILD) $(PACKAGES_DEB))
	@rm -rf build/deb && mkdir -p $(DEB)
	$(Q)tar c --exclude=./build --exclude=./.git --exclude=./systemd/debian . | tar x -C $(DEB)
	$(Q)cp -r systemd/debian $(DEB)/debian
	$(Q)cd $(DEB) && dpkg-buildpackage --unsigned-changes --unsigned-source --build=binary
	@ls build/deb/*.deb

dist:
	git archive --prefix=wsbind-$(VERSION)/ -o wsbind-$(VERSION).tar.gz HEAD

clean:
	rm -rf build compile_commands.json

help:
	@echo 'make                  the release binary: build/release/wsbind'
	@echo 'make run              install what building needs, build, show messages flowing'
	@echo 'make check            install what testing needs, run everything'
	@echo 'make check-unit       UNIT="ring wheel" for some'
	@echo 'make check-integration  TEST="40-channels 41" for some'
	@echo 'make check-conformance  RFC 6455, CASE="5 6.4" for some'
	@echo 'make check-fuzz       the harnesses of tests/fuzz on their seeds'
	@echo 'make check-systemd    MACHINE="reload journal" for some: in booted machines'
	@echo 'make check-debian13   all of it in a new root of Debian 13, as root: half an hour'
	@echo 'make check-model      MODEL="ring wake" for some: the lock-free parts, by spin'
	@echo 'make fuzz             NAME=$(subst $() ,|,$(FUZZ)) T=60: libFuzzer, for T seconds'
	@echo 'make fuzzers          only build them all, with clang'
	@echo 'make soak             T=3600 SEED= SOAK=--hand-overs: all that clients do, and nothing is left'
	@echo 'make coverage         which lines of src/ the tests reach: build/coverage/index.html'
	@echo 'make analyze          clang-tidy over src/: ten minutes'
	@echo 'make bench            beside the floor and peers: an hour and more; ONLY="fanout echo" BENCH="--rounds 1"'
	@echo 'make bench-guard      instructions for each delivery, echo and handshake; UPDATE=1 keeps them'
	@echo 'make lint             layers, owners, sizes, man pages, configuration file'
	@echo 'make deps             only install the packages'
	@echo 'make install          prefix=$(prefix) sysconfdir=$(sysconfdir) unitdir=$(unitdir) DESTDIR='
	@echo 'make compile_commands.json  how each file is compiled, for clangd and editors'
	@echo 'make config-template  make conf/wsbind.conf from the table of keys'
	@echo 'make format dist uninstall clean'
	@echo 'SAN=address,undefined or SAN=thread with any of them; V=1 shows commands'

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""reading.py QUESTION [GENERATED]: how the sources read, as far as a machine can say.

names     each name() in a comment exists: in the project, or in a library's header
statics   no static function is called by one bare word
includes  what a file includes of the project, it uses something of
comments  in each folder enough lines of the sources, and enough functions, say why
torn      a comment that begins beside its "/*" does not end with a word or less on its last line;
          one that begins behind code ends on that line
mend      puts torn comments together again, but for those behind code

GENERATED is the folder of what is made from proto/. Prints what is wrong, or the figures;
exit status 1 when something is wrong.
"""
import bisect
import glob
import re
import subprocess
import sys
import textwrap

COLUMNS = 100
MIN_LINES = 8.0  # percent of the lines of src/*/*.c that hold a comment
MIN_FUNCTIONS = 40.0  # percent of the functions from LONG lines up that hold one
LONG = 15
GENERATED = sys.argv[2] if len(sys.argv) > 2 else "build/release/gen"

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


class Source:
    def __init__(self, path):
        self.path = path
        with open(path, encoding="utf-8") as f:
            self.text = f.read()
        self.lines = self.text.splitlines()
        self.comments = []  # (first line, last line, text), lines from 1
        starts = [0] + [m.end() for m in re.finditer("\n", self.text)]
        self.code = []
        at = 0
        for m in TOKEN.finditer(self.text):
            self.code += [self.text[at : m.start()], " " if m[0][0] == "/" else '""']
            at = m.end()
            if m[0][0] == "/":
                first = bisect.bisect(starts, m.start())
                self.comments.append((first, first + m[0].count("\n"), m[0]))
        self.code = "".join(self.code + [self.text[at:]])

    def functions(self):
        """(first line, last line) of each, from its signature to its brace at the margin."""
        signature = first = None
        for i, line in enumerate(self.lines, 1):
            if first:
                if line.startswith("}"):
                    yield first, i
                    first = signature = None
            elif line.startswith("{"):
                first = signature
            elif re.match(r"[A-Za-z_].*\(", line) and not line.endswith(";"):
                signature = i
            elif line and not line[0].isspace():
                signature = None


def sources(*patterns):
    return [Source(path) for p in patterns for path in sorted(glob.glob(p))]


def library_names():
    """What the headers of the libraries that are included declare and define."""
    include = re.compile(r"^#include <[^>]+>", re.M)
    found = set()
    for s in sources("src/*.c", "src/*/*.[ch]", "tests/unit/*.[ch]"):
        found |= set(include.findall(s.text))
    packages = "libprotobuf-c libsystemd libzstd libmicrohttpd".split()
    flags = subprocess.check_output(["pkg-config", "--cflags", *packages], text=True).split()
    # cmocka.h wants these three before it.
    first = ["#include <%s>" % name for name in ("stdarg.h", "stddef.h", "setjmp.h")]
    text = "\n".join(first + sorted(found - set(first)) + [""])
    text = subprocess.run(
        ["gcc", "-std=gnu17", "-D_GNU_SOURCE", *flags, "-E", "-dD", "-x", "c", "-"],
        input=text, stdout=subprocess.PIPE, check=True, text=True,
    ).stdout
    return set(re.findall(r"\w+", text))


def names():
    known = library_names()
    project = sources("src/*.c", "src/*/*.[ch]", "tests/*/*.[ch]", "bench/*.[ch]")
    for s in project:
        known |= set(re.findall(r"\b(\w+)\s*\(", s.code))
        known |= set(re.findall(r"\(\s*\*\s*(?:const\s+)?(\w+)\s*\)\s*\(", s.code))
        # What a macro makes of its parameter: run_##name is run_NAME() in a comment.
        known |= {"%sname" % part for part in re.findall(r"\b(\w+_)##", s.code)}
        known |= {"name%s" % part for part in re.findall(r"##(_\w+)", s.code)}
    bad = 0
    for s in project:
        for first, _, text in s.comments:
            for m in re.finditer(r"\b([A-Za-z_]\w*)\(\)", text):
                if m[1] not in known and m[1].replace("NAME", "name") not in known:
                    line = first + text.count("\n", 0, m.start())
                    print("%s:%d: there is no %s()" % (s.path, line, m[1]))
                    bad = 1
    return bad


def statics():
    bare = []
    for s in sources("src/*.c", "src/*/*.[ch]"):
        code = re.sub(r"WB_[A-Z]+(\([^)]*\))?|__attribute__\(\(.*?\)\)", "", s.code)
        for m in re.finditer(r"^static\b[^=;{}()]*?\b([a-zA-Z0-9]+)\(", code, re.M):
            bare.append("%s: %s() says nothing of what it acts on" % (s.path, m[1]))
    print("\n".join(bare), end="\n" * bool(bare))
    return 1 if bare else 0


def declared(header):
    """Names that a header itself declares or defines."""
    names = set(re.findall(r"^[ \t]*#[ \t]*define\s+(\w+)", header.code, re.M))
    attribute = r"(\bWB_[A-Z_]+\([^()]*\)|\bWB_[A-Z_]+\b|__attribute__\(\(.*?\)\)) ?"
    code = re.sub(attribute, "", header.code)
    names |= set(re.findall(r"\b(?:struct|union|enum)\s+(\w+)\s*\{", code))
    names |= set(re.findall(r"^(?:struct|union)\s+(\w+);", code, re.M))
    names |= set(re.findall(r"^typedef\b[^;]*?\b(\w+)\s*(?:\(|;)", code, re.M))
    for variables in re.findall(r"^extern\b([^;]*;)", code, re.M):
        names |= set(re.findall(r"\b(\w+)\s*[\[,;]", variables))
    names |= set(re.findall(r"^[A-Za-z_][^;{}=#]*?\b(\w+)\s*\(", code, re.M))
    for body in re.findall(r"\benum\b[^{;]*\{([^}]*)\}", code):
        names |= set(re.findall(r"(?:^|,)\s*(\w+)", body))
    # Everybody has these from base.h, and what is made from proto/ from the header beside it.
    if header.path == "src/base/base.h":
        names |= set("bool true false NULL size_t ssize_t ptrdiff_t SIZE_MAX free".split())
        names |= {"%sint%d_t" % (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}
    for proto in re.findall(r'^#include "(\w+)\.pb-c\.h"', header.text, re.M):
        with open("%s/%s.pb-c.h" % (GENERATED, proto), encoding="utf-8") as f:
            names |= set(re.findall(r"\w+__\w+", f.read()))
    return names


def includes():
    headers = {s.path[len("src/"):]: s for s in sources("src/*/*.h")}
    # Tables of rows, without `#pragma once`, are included for what the macros make of them.
    tables = {path: s for path, s in headers.items() if not re.search("^#pragma once", s.text, re.M)}
    names = {path: declared(s) for path, s in headers.items() if path not in tables}
    bad = 0
    for s in sources("src/*.c", "src/*/*.[ch]", "tests/*/*.[ch]", "bench/*.[ch]"):
        found = list(re.finditer(r'^\s*#\s*include "([^"]+)"', s.text, re.M))
        code = s.code + "".join(tables[m[1]].code for m in found if m[1] in tables)
        words = set(re.findall(r"\w+", re.sub("^#include.*", "", code, flags=re.M)))
        for m in found:
            path = m[1]
            is_own = s.path.endswith(".c") and path.split("/")[-1][:-2] in s.path
            if path in names and not is_own and not names[path] & words:
                line = s.text.count("\n", 0, m.start(1)) + 1
                print("%s:%d: nothing of %s is used" % (s.path, line, path))
                bad = 1
    return bad


def comments():
    folders = {}
    for s in sources("src/*.c", "src/*/*.c"):
        said = set()
        for first, last, text in s.comments:
            if "SPDX-License-Identifier" not in text:
                said |= set(range(first, last + 1))
        longs = [(a, b) for a, b in s.functions() if b - a + 1 >= LONG]
        telling = [1 for a, b in longs if any(a < line <= b for line in said)]
        row = (len(s.lines), len(said), len(longs), len(telling))
        folder = s.path.split("/")[1]
        for key in (folder, "all"):
            folders[key] = [x + y for x, y in zip(folders.get(key, [0] * 4), row)]
    def is_enough(lines, said, longs, telling):
        return 100 * said >= MIN_LINES * lines and 100 * telling >= MIN_FUNCTIONS * longs

    for folder, (lines, said, longs, telling) in sorted(folders.items()):
        print("%-12s %5.1f %% of %5d lines, %3.0f %% of %3d functions from %d lines up" % (
            folder, 100 * said / lines, lines, 100 * telling / max(longs, 1), longs, LONG))
    return 0 if all(is_enough(*row) for row in folders.values()) else 1


def torn_comments(s):
    """(first line, last line, text, whether it begins behind code) of each that is torn."""
    for first, last, text in s.comments:
        lines = [line.strip() for line in text.split("\n")]
        if first == last or lines[0] in ("/*", "/**"):
            continue
        behind_code = not s.lines[first - 1].strip().startswith("/*")
        alone = len(re.sub(r"^\* ?|\*/$", "", lines[-1]).split()) < 2
        if behind_code or alone or lines[-1] == "*/":
            yield first, last, " ".join(text.split()), behind_code


def formatted_sources():
    return sources("src/*.c", "src/*/*.[ch]", "tests/*/*.[ch]", "bench/*.[ch]", "bench/*/*.[ch]")


def torn():
    bad = 0
    for s in formatted_sources():
        for first, _, text, _ in torn_comments(s):
            print("%s:%d: torn: %s" % (s.path, first, text))
            bad = 1
    return bad


def mend():
    for s in formatted_sources():
        found = [t for t in torn_comments(s) if not t[3]]
        for first, last, text, _ in reversed(found):
            indent = re.match(r"\s*", s.lines[first - 1])[0]
            words = re.sub(r"(^/\*|\*/$| \*(?= ))", "", text).strip()
            room = min(95, COLUMNS - len(indent.expandtabs(8)))
            lines = textwrap.wrap(words, room - len(" * "), break_on_hyphens=False)
            block = ["/*"] + [" * " + line for line in lines] + [" */"]
            s.lines[first - 1:last] = [indent + line for line in block]
        if found:
            with open(s.path, "w", encoding="utf-8") as f:
                f.write("\n".join(s.lines) + "\n")
    return 0


sys.exit({f.__name__: f for f in (names, statics, includes, comments, torn, mend)}[sys.argv[1]]())

# SPDX-License-Identifier: MIT
"""Renews tests/data/safetensors_verdicts.tsv: what the reference implementation of safetensors says to files of the
classes S01 to S35 (S36 is a file that changes while it is read, tests/null/test_safetensors.c).

    python3 -m venv venv && venv/bin/pip install safetensors==0.5.2
    venv/bin/python tests/oracle/safetensors_verdicts.py        # from the repository root

A line: class, what it is, the verdict, why Burin is stricter ("-": it is not), the length that the file claims ("auto":
that of its header; "none": no length, the second text is the whole file), the header, how many bytes
of 0 follow. In the header \\xNN is a byte and \\(N*text) a text N times.
"""
import re
import struct
import sys

import safetensors

TABLE = "tests/data/safetensors_verdicts.tsv"


def tensor(name, dtype="U8", shape="[1]", begin=0, end=1, more=""):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]{more}}}'


def scalar(name, begin, size, dtype):
    return tensor(name, dtype, "[]", begin, begin + size)


GOOD = tensor("a", "F32", "[2]", 0, 8)
SIZES = dict(F64=8, I64=8, U64=8, F32=4, I32=4, U32=4, F16=2, BF16=2, I16=2, U16=2, I8=1, U8=1, BOOL=1, F8_E4M3=1,
             F8_E5M2=1)
EVERY = []
for dtype in SIZES:
    EVERY.append(scalar(dtype.lower(), sum(SIZES[d] for d in list(SIZES)[:len(EVERY)]), SIZES[dtype], dtype))

FIRST = "the format wants { as the first character"
TWICE = "the format forbids a key twice; readers disagree which one counts"
NUL = "a name becomes a text of C, which ends at a NUL"
CONTROL = "a control character in a name does things to a terminal"
RANK = "a tensor of Burin has at most 8 dimensions"
NAME = "a name of Burin has at most 511 bytes"
DEPTH = "a field that is not known may hold lists, but not deep ones"

# class, what, header, bytes of data, why stricter, claimed length
CASES = [
    ("S01", "an empty file", "", 0, "-", "none"),
    ("S02", "7 bytes", "1234567", 0, "-", "none"),
    ("S03", "a header of 0 bytes", r"\x00\x00\x00\x00\x00\x00\x00\x00", 0, "-", "none"),
    ("S04", "a header of 2^64 - 1 bytes", "{}", 0, "-", 2**64 - 1),
    ("S05", "a header of 100,000,001 bytes, which are there", "{}", 99999999, "-", 100000001),
    ("S06", "a header one byte longer than the file", "{}", 0, "-", 3),
    ("S07", "a length that cuts the header", "{" + GOOD + "}", 8, "-", 20),
    ("S08", "a byte that is not UTF-8", "{" + tensor(r"\xff") + "}", 1, "-", "auto"),
    ("S08", "an overlong form", "{" + tensor(r"\xc0\x80") + "}", 1, "-", "auto"),
    ("S08", "a surrogate as UTF-8", "{" + tensor(r"\xed\xa0\x80") + "}", 1, "-", "auto"),
    ("S09", "no JSON", "{hello}", 0, "-", "auto"),
    ("S09", "a comma at the end", "{" + GOOD + ",}", 8, "-", "auto"),
    ("S09", "a comment", "{/**/}", 0, "-", "auto"),
    ("S09", "a BOM", r"\xef\xbb\xbf{}", 0, "-", "auto"),
    ("S10", "a list", "[]", 0, "-", "auto"),
    ("S10", "null", "null", 0, "-", "auto"),
    ("S11", "no tensors", "{}", 0, "-", "auto"),
    ("S12", "a space in front", " {}", 0, FIRST, "auto"),
    ("S13", "spaces at the end", "{" + GOOD + "}     ", 8, "-", "auto"),
    ("S14", "NULs at the end", r"{}\x00\x00\x00\x00\x00\x00", 0, "-", "auto"),
    ("S15", "data without a tensor", "{}", 1, "-", "auto"),
    ("S15", "data behind the last tensor", "{" + GOOD + "}", 9, "-", "auto"),
    ("S16", "the last byte is missing", "{" + GOOD + "}", 7, "-", "auto"),
    ("S17", "a hole at the start", "{" + tensor("a", "U8", "[4]", 4, 8) + "}", 8, "-", "auto"),
    ("S17", "a hole in the middle", "{" + tensor("a", "U8", "[2]", 0, 2) + "," + tensor("b", "U8", "[2]", 4, 6) + "}",
     6, "-", "auto"),
    ("S18", "the same bytes twice", "{" + GOOD + "," + tensor("b", "F32", "[2]", 0, 8) + "}", 8, "-", "auto"),
    ("S18", "bytes that overlap", "{" + GOOD + "," + tensor("b", "F32", "[2]", 4, 12) + "}", 12, "-", "auto"),
    ("S19", "an end before its begin", "{" + tensor("a", "F32", "[2]", 8, 0) + "}", 8, "-", "auto"),
    ("S20", "a negative offset", "{" + tensor("a", "F32", "[2]", -8, 0) + "}", 8, "-", "auto"),
    ("S20", "an offset with a fraction", "{" + tensor("a", "F32", "[2]", "0.0", 8) + "}", 8, "-", "auto"),
    ("S20", "an offset with a power", "{" + tensor("a", "U8", "[10]", 0, "1e1") + "}", 10, "-", "auto"),
    ("S20", "an offset of 2^64", "{" + tensor("a", "F32", "[2]", 0, 2**64) + "}", 8, "-", "auto"),
    ("S20", "one offset", '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}', 1, "-", "auto"),
    ("S20", "three offsets", '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}', 1, "-", "auto"),
    ("S21", "a size that is not the shape's", "{" + tensor("a", "F32", "[3]", 0, 8) + "}", 8, "-", "auto"),
    ("S22", "a shape beyond 2^64", "{" + tensor("a", "F32", "[4294967296,4294967296,2]", 0, 0) + "}", 0, "-", "auto"),
    ("S22", "a shape that wraps to its size", "{" + tensor("a", "F32", "[4611686018427387906]", 0, 8) + "}", 8, "-",
     "auto"),
    ("S22", "a shape beyond 2^64 behind a 0", "{" + tensor("a", "F32", "[0,4294967296,4294967296]", 0, 0) + "}", 0,
     "the other dimensions must fit too: code may multiply them in another order", "auto"),
    ("S22", "a dimension of 2^63 beside a 0", "{" + tensor("a", "U8", "[9223372036854775808,0]", 0, 0) + "}", 0,
     "a dimension of Burin has a sign", "auto"),
    ("S22", "a dimension of 2^64 beside a 0", "{" + tensor("a", "U8", "[18446744073709551616,0]", 0, 0) + "}", 0, "-",
     "auto"),
    ("S23", "a negative dimension", "{" + tensor("a", "F32", "[-2]", 0, 8) + "}", 8, "-", "auto"),
    ("S23", "a text as a dimension", "{" + tensor("a", "F32", '["2"]', 0, 8) + "}", 8, "-", "auto"),
    ("S24", "a dimension of 0", "{" + tensor("a", "F32", "[3,0]", 0, 0) + "}", 0, "-", "auto"),
    ("S24", "no dimension", "{" + tensor("a", "F64", "[]", 0, 8) + "}", 8, "-", "auto"),
    ("S24", "a BOOL of 2", "{" + tensor("a", "BOOL") + r"}\x02", 0, "-", len("{" + tensor("a", "BOOL") + "}")),
    ("S25", "an unknown type", "{" + tensor("a", "F33", "[2]", 0, 8) + "}", 8, "-", "auto"),
    ("S25", "a type in small letters", "{" + tensor("a", "f32", "[2]", 0, 8) + "}", 8, "-", "auto"),
    ("S25", "no type", '{"a":{"shape":[2],"data_offsets":[0,8]}}', 8, "-", "auto"),
    ("S25", "no shape", '{"a":{"dtype":"U8","data_offsets":[0,1]}}', 1, "-", "auto"),
    ("S25", "no offsets", '{"a":{"dtype":"U8","shape":[1]}}', 1, "-", "auto"),
    ("S25", "every type", "{" + ",".join(EVERY) + "}", sum(SIZES.values()), "-", "auto"),
    ("S25", "a field of the future", "{" + tensor("a", more=',"new":[1.5e3]') + "}", 1, "-", "auto"),
    ("S26", "a field twice", '{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "-", "auto"),
    ("S27", "a name twice, the same bytes", "{" + GOOD + "," + GOOD + "}", 8, TWICE, "auto"),
    ("S27", "a name twice, other bytes", "{" + tensor("a") + "," + tensor("a", begin=1, end=2) + "}", 2, "-", "auto"),
    ("S28", "a name twice, once escaped", "{" + tensor("a") + "," + tensor(r"\\u0061") + "}", 1, TWICE, "auto"),
    ("S29", "a number in the metadata", '{"__metadata__":{"a":1}}', 0, "-", "auto"),
    ("S29", "an object in the metadata", '{"__metadata__":{"a":{}}}', 0, "-", "auto"),
    ("S29", "a list as metadata", '{"__metadata__":[]}', 0, "-", "auto"),
    ("S29", "null as metadata", '{"__metadata__":null}', 0, "-", "auto"),
    ("S29", "metadata twice", '{"__metadata__":{},"__metadata__":{}}', 0, "-", "auto"),
    ("S30", "a key of the metadata twice", '{"__metadata__":{"a":"1","a":"2"}}', 0, TWICE, "auto"),
    ("S31", "an empty name", "{" + tensor("") + "}", 1, "-", "auto"),
    ("S31", "a NUL in a name", "{" + tensor(r"a\\u0000b") + "}", 1, NUL, "auto"),
    ("S31", "a NUL in the metadata", r'{"__metadata__":{"a":"\\u0000"}}', 0, NUL, "auto"),
    ("S31", "an escape code in a name", "{" + tensor(r"a\\u001b[2J") + "}", 1, CONTROL, "auto"),
    ("S31", "a path as a name", "{" + tensor("../../x") + "}", 1, "-", "auto"),
    ("S31", "a name of 511 bytes", "{" + tensor(r"\(511*n)") + "}", 1, "-", "auto"),
    ("S31", "a name of 512 bytes", "{" + tensor(r"\(512*n)") + "}", 1, NAME, "auto"),
    ("S32", "half of a surrogate pair", "{" + tensor(r"\\ud83d") + "}", 1, "-", "auto"),
    ("S32", "a surrogate pair", "{" + tensor(r"\\ud83d\\ude00") + "}", 1, "-", "auto"),
    ("S32", "a control character as it is", "{" + tensor(r"a\x0ab") + "}", 1, "-", "auto"),
    ("S33", "a list in an unknown field", "{" + tensor("a", more=r',"x":[1]') + "}", 1, "-", "auto"),
    ("S33", "lists 100 deep in an unknown field", "{" + tensor("a", more=r',"x":\(100*[)\(100*])') + "}", 1,
     DEPTH, "auto"),
    ("S33", "lists 200 deep in an unknown field", "{" + tensor("a", more=r',"x":\(200*[)\(200*])') + "}", 1,
     "-", "auto"),
    ("S33", "lists 100,000 deep", r'{"a":\(100000*[)\(100000*])}', 0, "-", "auto"),
    ("S34", "8 dimensions", "{" + tensor("a", shape="[1,1,1,1,1,1,1,1]") + "}", 1, "-", "auto"),
    ("S34", "9 dimensions", "{" + tensor("a", shape="[1,1,1,1,1,1,1,1,1]") + "}", 1, RANK, "auto"),
    ("S34", "10,000 dimensions", "{" + tensor("a", shape=r"[1\(9999*,1)]") + "}", 1, RANK, "auto"),
    ("S35", "names in another order than their bytes", "{" + tensor("b", "U8", "[2]", 4, 6) + ","
     + tensor("a", "U8", "[4]", 0, 4) + "}", 6, "-", "auto"),
    ("S35", "a header of 57 bytes", "{" + tensor("abc") + "}", 1, "-", "auto"),
]


def decode(text):
    """The bytes that a header of the table stands for."""
    def one(m):
        if m[1]:
            return decode(m[2]) * int(m[1])
        return b"\\" if m[0] == "\\\\" else bytes([int(m[3], 16)])
    out, at = b"", 0
    for m in re.finditer(r"\\\((\d+)\*([^)]*)\)|\\x([0-9a-f]{2})|\\\\", text):
        out += text[at:m.start()].encode() + one(m)
        at = m.end()
    return out + text[at:].encode()


def make(header, data, claimed):
    body = decode(header)
    length = b"" if claimed == "none" else struct.pack("<Q", len(body) if claimed == "auto" else claimed)
    return length + body + bytes(data)


def verdict(content):
    try:
        safetensors.deserialize(content)
        return "accepts"
    except safetensors.SafetensorError:
        return "refuses"


def main():
    lines = [f"# Verdicts of safetensors {safetensors.__version__}, by tests/oracle/safetensors_verdicts.py."]
    for kind, what, header, data, why, claimed in CASES:
        said = verdict(make(header, data, claimed))
        if why != "-" and said == "refuses":
            sys.exit(f"{kind} {what}: it is refused, so that nobody is stricter")
        lines.append("\t".join([kind, what, said, why, str(claimed), header, str(data)]))
    with open(TABLE, "w") as out:
        out.write("\n".join(lines) + "\n")
    print(f"{len(CASES)} files; {sum('accepts' in line for line in lines[1:])} are accepted")


main()

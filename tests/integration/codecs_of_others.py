# SPDX-License-Identifier: MIT
"""What other programs would pack and unpack payloads with: the C libraries through ctypes."""

import ctypes
import gzip

_zstd = ctypes.CDLL("libzstd.so.1")
_lz4 = ctypes.CDLL("liblz4.so.1")
for _name in ("ZSTD_compress", "ZSTD_decompress", "ZSTD_compressBound"):
    getattr(_zstd, _name).restype = ctypes.c_size_t
for _name in ("LZ4F_compressFrame", "LZ4F_compressFrameBound", "LZ4F_decompress",
              "LZ4F_createDecompressionContext", "LZ4F_freeDecompressionContext"):
    getattr(_lz4, _name).restype = ctypes.c_size_t


def _size(n):
    return ctypes.c_size_t(n)


def zstd_pack(data, level=3):
    out = ctypes.create_string_buffer(_zstd.ZSTD_compressBound(_size(len(data))))
    n = _zstd.ZSTD_compress(out, _size(len(out)), data, _size(len(data)), level)
    assert not _zstd.ZSTD_isError(_size(n))
    return out.raw[:n]


def zstd_unpack(data, limit=32 << 20):
    out = ctypes.create_string_buffer(limit)
    n = _zstd.ZSTD_decompress(out, _size(limit), data, _size(len(data)))
    assert not _zstd.ZSTD_isError(_size(n)), "no zstd frame"
    return out.raw[:n]


def lz4_pack(data):
    out = ctypes.create_string_buffer(_lz4.LZ4F_compressFrameBound(_size(len(data)), None))
    n = _lz4.LZ4F_compressFrame(out, _size(len(out)), data, _size(len(data)), None)
    assert not _lz4.LZ4F_isError(_size(n))
    return out.raw[:n]


gzip_pack = gzip.compress
gzip_unpack = gzip.decompress

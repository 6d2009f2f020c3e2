#!/usr/bin/env python3
"""gguf_golden.py > gguf_golden.h: blocks of quantised weights and what gguf's own numpy code makes of them.

pip install gguf numpy. Two blocks a type are random bytes with finite scales, two are quantised normal numbers where the
package can quantise the type.
"""
import sys

import gguf
import numpy as np

TYPES = ["Q8_0", "Q4_0", "Q4_K", "Q6_K", "Q5_0"]
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_K": [0, 2], "Q6_K": [208], "Q5_0": [0]}


def words(values, form, a_line):
    lines = [", ".join(form % v for v in values[i : i + a_line]) for i in range(0, len(values), a_line)]
    return ",\n    ".join(lines)


def main():
    random = np.random.default_rng(13)
    print("/* Written by gguf_golden.py with gguf %s. */" % "0.19.0")
    print("#pragma once\n#include <stdint.h>\n")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = random.integers(0, 256, (2, size), dtype=np.uint8)
        for i, at in enumerate(SCALES[name]):
            scales = np.array([0.0123 * (i + 1), -6e-6], dtype=np.float16)  # the second is a subnormal half
            data[:, at : at + 2] = scales.view(np.uint8).reshape(2, 2)
        try:
            normal = random.standard_normal((2, block)).astype(np.float32)
            data = np.concatenate([data, gguf.quants.quantize(normal, kind).reshape(2, size)])
        except NotImplementedError:
            pass
        values = gguf.quants.dequantize(data, kind).astype(np.float32)
        print("static const unsigned char golden_%s_bytes[] = {\n    %s};" % (name.lower(), words(data.flatten(), "%d", 20)))
        print("static const uint32_t golden_%s_bits[] = {\n    %s};\n"
              % (name.lower(), words(values.flatten().view(np.uint32), "0x%08x", 8)))


sys.exit(main())

/* A table as a notebook shows it: what the Python function `show` of common.py makes of the same
 * data frame, byte for byte. Numbers: whole ones whole, others to four digits; NULL is empty. */
#pragma once
#include "core/text.h"
#include "results/frame.h"

void sheet_html(Text *out, const Frame *frame);
void sheet_plain(Text *out, const Frame *frame);

/* SPDX-License-Identifier: MIT */
/* Numbers as people read them. */
#include "bench_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

char *bench_text_count(char *buf, size_t size, double value)
{
	char digits[32];
	size_t i, len, out = 0;

	snprintf(digits, sizeof(digits), "%.0f", value);
	len = strlen(digits);
	for (i = 0; i < len && out + 2 < size; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			buf[out++] = ',';
		buf[out++] = digits[i];
	}
	buf[out] = '\0';
	return buf;
}

char *bench_text_bytes(char *buf, size_t size, uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1024) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, size, value < 100 && value != (double)(uint64_t)value ? "%.1f %s" : "%.0f %s",
		 value, units[unit]);
	return buf;
}

char *bench_text_figure(char *buf, size_t size, double value)
{
	if (isnan(value))
		snprintf(buf, size, "-");
	else if (value > 0 && value < 0.0995)
		snprintf(buf, size, "%.4f", value);
	else if (value < 99.995)
		snprintf(buf, size, "%.2f", value);
	else if (value < 999.95)
		snprintf(buf, size, "%.1f", value);
	else
		bench_text_count(buf, size, value);
	return buf;
}

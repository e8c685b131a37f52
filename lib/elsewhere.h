/* SPDX-License-Identifier: MIT */
/*
 * Calls that block in ways which a ring cannot take over, as a task makes them:
 * on a helper thread, with the same arguments and the same answer.
 */
#ifndef GYRE_LIB_ELSEWHERE_H
#define GYRE_LIB_ELSEWHERE_H

#include <gyre.h>

ssize_t gyre__write_durable_elsewhere(struct gyre *rt, int fd, const void *buf, size_t len,
				      off_t offset);
int gyre__durable_reset_elsewhere(struct gyre *rt, int fd);
int gyre__fsync_elsewhere(struct gyre *rt, int fd);
int gyre__fdatasync_elsewhere(struct gyre *rt, int fd);
int gyre__close_fd_elsewhere(struct gyre *rt, int fd);
enum gyre_status gyre__buffer_get_elsewhere(struct gyre *rt, size_t len, struct gyre_buffer **ret);
enum gyre_status gyre__dump_elsewhere(struct gyre *rt, int fd);
enum gyre_status gyre__stats_write_elsewhere(struct gyre *rt, int fd, enum gyre_format format);

#endif

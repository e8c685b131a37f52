/* SPDX-License-Identifier: MIT */
#ifndef GYRE_SIM_STATICS_H
#define GYRE_SIM_STATICS_H

/*
 * Every seed starts in a process that has just been started, as far as it can
 * tell: whatever the library or this program keeps in statics is set back to
 * what it was at the first call. What is to last lies on a stack, or is mapped.
 */
void sim_statics_back(void);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Memory with store buffers, for the models to include before any process of
 * their own. A model says how many threads (THREADS) and words (WORDS) it has.
 *
 * A plain or relaxed store waits in its thread's buffer, one cell for each
 * word, and reaches memory at any later moment, in any order: weaker than
 * x86-64, which keeps the order, and near to what 64-bit ARM may do with
 * stores. Who loads sees his own waiting store, else memory.
 *
 * A read-modify-write acts on memory in one step. With release order it waits
 * until the thread's buffer is empty; so does a release store, which goes into
 * the buffer itself then. A seq_cst store is a read-modify-write here, as on
 * x86-64. No load is moved before an earlier one; where an acquire matters, the
 * model keeps what the thread saw at its last acquire, and lets a load return that.
 */
#define NOTHING			255
#define CELL(thread, word)	((thread) * WORDS + (word))
#define STORE(thread, word, value) \
	waiting[CELL(thread, word)] = (value)
#define LOAD(thread, word) \
	(waiting[CELL(thread, word)] != NOTHING -> waiting[CELL(thread, word)] : memory[word])

/* All that the thread has stored so far is in memory: the guard of a release. */
#define CELL_IS_EMPTY(thread, word) \
	((word) >= WORDS || waiting[CELL(thread, (word) % WORDS)] == NOTHING)
#define RELEASED(thread) \
	(CELL_IS_EMPTY(thread, 0) && CELL_IS_EMPTY(thread, 1) && CELL_IS_EMPTY(thread, 2) && \
	 CELL_IS_EMPTY(thread, 3) && CELL_IS_EMPTY(thread, 4))

byte memory[WORDS];
byte waiting[THREADS * WORDS] = NOTHING;

/* One for each cell, and the first processes, so that _pid is the cell. */
active [THREADS * WORDS] proctype buffer()
{
end:	do
	:: atomic {
		waiting[_pid] != NOTHING ->
			memory[_pid % WORDS] = waiting[_pid];
			waiting[_pid] = NOTHING
	   }
	od
}

# SPDX-License-Identifier: MIT
"""What gyre's workers are doing, for gdb: from a live process or from a core.

    (gdb) source gyre-gdb.py        (an installed libgyre brings it along)
    (gdb) gyre-workers [RT]         each worker, its thread, state and figures
    (gdb) gyre-ops [RT]             each op under way, and who waits for it

RT is an expression for a struct gyre *; without it, all runtimes that any
thread knows. Only memory is read: nothing is called in the process. The
library's debug information is needed (Debian: libgyre0-dbgsym).
"""
import errno
import re
import time

import gdb
import gdb.printing

NO_SLOT = 0xFFFFFFFF
ASLEEP, IDLE, SEALED, ENDED, BITS = 1, 2, 4, 8, 63    # GYRE__INBOX_*
LIST_MAX = 1 << 20      # a list that is longer is none
NS_PER_MS = 1000000

# ------------------------------------------------------------------ reading


def number(value):
    """A plain int, of atomics too, which gdb does not convert by itself."""
    return int(value.cast(gdb.lookup_type("unsigned long")))


def signed(value):
    return int(value.cast(gdb.lookup_type("long")))


def text(value):
    """A char array or pointer of the process as a string."""
    try:
        return value.string(errors="replace")
    except (gdb.MemoryError, gdb.error):
        return "?"


def static_of(name, tag):
    """The file-local variable NAME of, or pointing to, struct TAG: there may be others."""
    for symbol in gdb.lookup_static_symbols(name):
        if not symbol.is_variable:
            continue
        kind = symbol.type.strip_typedefs()
        while kind.code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_ARRAY):
            kind = kind.target().strip_typedefs()
        if kind.unqualified().tag == tag:
            return symbol
    return None


def enum_names(type_name, prefix):
    """{value: name in words} of an enum of the library."""
    try:
        fields = gdb.lookup_type("enum " + type_name).fields()
    except gdb.error:
        return {}
    return {field.enumval: field.name[len(prefix):].lower().replace("_", " ")
            for field in fields if field.name.startswith(prefix)}


def chain(first, link, end=0):
    """The members of a linked list, as far as they can be read."""
    seen = 0
    while number(first) != end and seen < LIST_MAX:
        try:
            following = first[link]
            following.fetch_lazy()
        except gdb.error:
            return
        yield first
        first = following
        seen += 1


def same_type_pointer(value, type_name):
    return gdb.Value(number(value)).cast(gdb.lookup_type(type_name).pointer())


class Clock:
    """Now, by the clock of the library: that of a core has stood still."""

    def __init__(self, runtimes):
        self.live = False
        inferior = gdb.selected_inferior()
        kind = getattr(getattr(inferior, "connection", None), "type", None)
        if kind is None:
            kind = "core" if "core" in gdb.execute("info target", to_string=True) else "native"
        if inferior.pid and kind == "native":
            self.live = True
            self.now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            return
        self.now = 0
        for rt in runtimes:
            for worker in workers_of(rt):
                self.now = max(self.now, number(worker["ring"]["now_ns"]),
                               number(worker["ring"]["pace"]["told_ns"]))
                for _, op in live_ops(worker["ring"]):
                    self.now = max(self.now, number(op["since_ns"]))

    def age(self, since):
        return "%s%s" % ("" if self.live else ">= ", span(self.now - since))

    def due(self, deadline):
        if deadline <= self.now:
            return "due"
        return "due in %s%s" % ("" if self.live else "<= ", span(deadline - self.now))


def span(ns):
    ns = max(ns, 0)
    if ns < 10000 * NS_PER_MS:
        return "%d.%03d ms" % (ns // NS_PER_MS, ns // 1000 % 1000)
    return "%d s" % (ns // (1000 * NS_PER_MS))


# ------------------------------------------------------- what the library has


def records():
    """The library's records of threads, newest first."""
    symbol = static_of("threads", "gyre__thread")
    if symbol is None:
        raise gdb.GdbError("no debug information of libgyre "
                           "(Debian: install libgyre0-dbgsym), or the program has not called it")
    return list(chain(symbol.value(), "next"))


def runtimes_of(argument, known):
    if argument:
        value = gdb.parse_and_eval(argument)
        return [same_type_pointer(value, "struct gyre").dereference()]
    found = []
    for record in known:
        pointers = [record["runtime"], record["inside"]]
        homes = record["homes"]
        for i in range(homes.type.strip_typedefs().range()[1] + 1):
            pointers.append(homes[i]["rt"])
        for pointer in pointers:
            if number(pointer) and number(pointer) not in found:
                found.append(number(pointer))
    return [same_type_pointer(gdb.Value(address), "struct gyre").dereference()
            for address in sorted(found)]


def workers_of(rt):
    crew = rt["crew"]
    if number(crew) == 0:
        return
    pointers = crew["worker"].type.target().pointer()
    first = crew["worker"].address.cast(pointers)
    for i in range(number(crew["count"])):
        yield first[i].dereference()


def live_ops(ring):
    """(slot, op) of each op that is not free."""
    table = ring["table"]
    if number(table["ops"]) == 0:
        return
    for slot in range(min(number(table["used"]), LIST_MAX)):
        op = table["ops"][slot]
        if number(op["state"]) != 0:
            yield slot, op


def opcode_name(opcode):
    symbol = static_of("rows", "row")
    if symbol is not None:
        rows = symbol.value()
        if opcode <= rows.type.range()[1] and number(rows[opcode]["name"]):
            return text(rows[opcode]["name"])
    return "opcode %d" % opcode


def function_at(address):
    """The name of the function at ADDRESS, or the address."""
    block = gdb.block_for_pc(address) if address else None
    while block is not None and block.function is None:
        block = block.superblock
    if block is not None:
        return block.function.print_name
    said = gdb.execute("info symbol 0x%x" % address, to_string=True)
    found = re.match(r"(\S+) in section", said)
    return found.group(1) if found else "0x%x" % address


def errno_name(error):
    return errno.errorcode.get(error, str(error))


# ---------------------------------------------------------------- threads


def frames_of(thread):
    """The frames of a thread, newest first; what cannot be unwound is left out."""
    thread.switch()
    try:
        frame = gdb.newest_frame()
        while frame is not None and frame.is_valid():
            yield frame
            frame = frame.older()
    except gdb.error:
        return


class Threads:
    """gdb's threads by what the library calls them."""

    def __init__(self):
        self.by_record = {}
        self.by_handle = {}
        inferior = gdb.selected_inferior()
        selected = gdb.selected_thread()
        frame = gdb.selected_frame() if selected is not None else None
        symbol = static_of("gyre__self_value", None)
        for thread in inferior.threads():
            try:
                handle = int.from_bytes(thread.handle(), "little")
                self.by_handle[handle] = thread
            except gdb.error:
                pass
            if symbol is not None:
                thread.switch()
                try:
                    record = number(symbol.value(gdb.newest_frame()))
                except (gdb.error, TypeError):
                    continue
                if record:
                    self.by_record[record] = thread
        if selected is not None:
            selected.switch()
            frame.select()

    def of_worker(self, worker):
        return self.by_handle.get(number(worker["thread"]))

    @staticmethod
    def title(thread):
        if thread is None:
            return "no thread"
        name = ' "%s"' % thread.name if thread.name else ""
        return "thread %d (LWP %d%s)" % (thread.num, thread.ptid[1] or thread.ptid[0], name)


def keeps_selection(command):
    """Walking through threads selects them: afterwards all is as it was."""

    def wrapped(self, argument, from_tty):
        selected = gdb.selected_thread()
        frame = gdb.selected_frame() if selected is not None else None
        try:
            command(self, argument, from_tty)
        except gdb.MemoryError as error:
            raise gdb.GdbError("this memory is not there: %s" % error)
        finally:
            if selected is not None and selected.is_valid():
                selected.switch()
                if frame.is_valid():
                    frame.select()

    return wrapped


def call_site(thread):
    """The public function that a thread is in, and the line that called it."""
    inside = None
    for frame in frames_of(thread):
        name = frame.name() or ""
        if re.match(r"gyre_[a-z]", name):
            inside = name
        elif inside is not None:
            where = frame.find_sal()
            place = name or "0x%x" % frame.pc()
            if where.symtab is not None:
                place += " at %s:%d" % (where.symtab.filename, where.line)
            return "%s, called by %s" % (inside, place)
    return inside or ""


# --------------------------------------------------------------- gyre-ops


class Ops(gdb.Command):
    """gyre-ops [RT]: each op under way, and who waits for it.

Of the library's own ops only those are shown that hold a buffer whose caller
has left. Ops that wait for room have no slot yet."""

    def __init__(self):
        super().__init__("gyre-ops", gdb.COMMAND_DATA)

    @keeps_selection
    def invoke(self, argument, from_tty):
        self.records = records()
        self.threads = Threads()
        self.states = enum_names("gyre__op_state", "GYRE__OP_")
        self.reasons = enum_names("gyre__op_reason", "GYRE__OP_")
        runtimes = runtimes_of(argument, self.records)
        self.clock = Clock(runtimes)
        if not runtimes:
            print("no runtime is open")
        elif not self.clock.live:
            print("a core: times are those of its last look at the clock")
        for rt in runtimes:
            print_runtime(rt)
            for worker in workers_of(rt):
                self.print_worker(worker)

    def print_worker(self, worker):
        name = text(worker["name"])
        ring = worker["ring"]
        for slot, op in live_ops(ring):
            if number(op["batch"]) or number(op["stream"]) or \
                    self.states.get(number(op["state"])) == "left":
                try:
                    print("  %s op %d: %s" % (name, slot, ", ".join(self.words(ring, op))))
                except gdb.MemoryError as error:
                    print("  %s op %d: %s" % (name, slot, error))
        for batch in chain(ring["waiting"]["head"], "queue_next"):
            print("  %s: %d of %d ops wait for room, %s" %
                  (name, number(batch["count"]) - number(batch["started"]),
                   number(batch["count"]), self.caller(batch)))

    def words(self, ring, op):
        state = number(op["state"])
        words = [opcode_name(number(op["opcode"]))]
        if signed(op["fd"]) >= 0:
            words[0] += " fd %d" % signed(op["fd"])
        words.append(self.states.get(state, "state %d" % state))
        if number(op["reason"]):
            words[-1] += " (%s)" % self.reasons.get(number(op["reason"]), number(op["reason"]))
        words.append("for " + self.clock.age(number(op["since_ns"])))
        if number(op["timer"]) != NO_SLOT:
            timer = ring["timers"]["heap"][number(op["timer"])]
            words.append(self.clock.due(number(timer["deadline_ns"])))
        if number(op["batch"]):
            batch = op["batch"].dereference()
            index = number(op["index"])
            words.append("%d of %d by %s" % (index + 1, number(batch["count"]),
                                             self.prep(batch, index)))
            words.append(self.caller(op["batch"]))
        return words

    @staticmethod
    def prep(batch, index):
        try:
            return function_at(number(batch["entries"][index]["prep"]))
        except gdb.MemoryError:
            return "?"

    def caller(self, batch):
        """Whose the batch is: each thread has one, in its record."""
        for record in self.records:
            if number(record["batch"].address) != number(batch):
                continue
            thread = self.threads.by_record.get(number(record))
            if thread is None:
                return "for the library's thread %d" % number(record["number"])
            site = call_site(thread)
            return "for %s%s" % (Threads.title(thread), " in " + site if site else "")
        return "for a batch at 0x%x that no thread has" % number(batch)


# ----------------------------------------------------------- gyre-workers


def print_runtime(rt):
    words = []
    if number(rt["closed"]):
        words.append("closed")
    try:
        if number(rt["guard"].dereference()) != number(rt["id"]):
            words.append("of the parent that this process was forked from")
    except gdb.MemoryError:
        pass
    name = rt["settings"]["name"]
    count = number(rt["crew"]["count"])
    print('runtime 0x%x "%s", %d worker%s%s' %
          (number(rt.address), text(name), count, "" if count == 1 else "s",
           "".join(", " + word for word in words)))


class Workers(gdb.Command):
    """gyre-workers [RT]: each worker, its thread, what it does, and its figures."""

    def __init__(self):
        super().__init__("gyre-workers", gdb.COMMAND_DATA)

    @keeps_selection
    def invoke(self, argument, from_tty):
        self.threads = Threads()
        self.phases = enum_names("gyre__ring_phase", "GYRE__RING_")
        runtimes = runtimes_of(argument, records())
        if not runtimes:
            print("no runtime is open")
        for rt in runtimes:
            print_runtime(rt)
            for worker in workers_of(rt):
                self.print_worker(worker)

    def print_worker(self, worker):
        ring = worker["ring"]
        phase = number(ring["phase"])
        thread = self.threads.of_worker(worker)
        words = [self.state(worker, thread)]
        if words[0].split()[0] not in ("dead", "ended") and phase:
            words.append(self.phases.get(phase, "phase %d" % phase))
        if number(ring["overloaded"]):
            words.append("overloaded")
        if number(ring["busy_ns"]):
            words.append("the kernel refuses submissions: tried again every %s" %
                         span(number(ring["busy_ns"])))
        print("  worker %d %s: %s, %s" % (number(worker["number"]), text(worker["name"]),
                                          ", ".join(words), Threads.title(thread)))
        print("    " + ", ".join(self.load(ring)))
        counters = ring["counters"]
        print("    " + " ".join("%s=%d" % (field.name, number(counters[field.name]))
                                for field in counters.type.fields()))

    @staticmethod
    def state(worker, thread):
        """By the words that it shares with others, then by where its thread stands."""
        ring = worker["ring"]
        if number(ring["dead"]):
            return "dead of %s" % errno_name(number(ring["dead"]))
        word = number(ring["inbox"]["word"])
        up = signed(worker["up"].cast(gdb.lookup_type("int")))
        if up == 0:
            return "starting"
        if word & ENDED or up < 0:
            return "ended"
        if word & ASLEEP:
            return "asleep, idle" if word & IDLE else "asleep"
        names = [frame.name() for frame in frames_of(thread)] if thread is not None else []
        if "back_off" in names:
            return "pausing"
        if "gyre__ring_wait" in names:
            return "spinning"
        if "gyre__ring_turn" in names:
            return "turning"
        return "awake"

    @staticmethod
    def load(ring):
        inbox = ring["inbox"]["word"]
        table = ring["table"]
        first = gdb.Value(number(inbox) & ~BITS).cast(
            gdb.lookup_type("struct gyre__batch").pointer())
        waiting = list(chain(ring["waiting"]["head"], "queue_next"))
        words = ["inbox %d%s" % (len(list(chain(first, "next"))),
                                 ", sealed" if number(inbox) & SEALED else ""),
                 "in flight %d of %d" % (number(table["live"]) - number(table["live_library"]),
                                         number(ring["config"]["inflight_max"])),
                 "waiting %d batches with %d ops" %
                 (len(waiting), sum(number(batch["count"]) - number(batch["started"])
                                    for batch in waiting)),
                 "held %d" % len(list(chain(ring["held"]["head"], "queue_next")))]
        try:
            words.append("not submitted %d" %
                         ((number(ring["sq_tail"]) -
                           number(ring["uring"]["sq"]["khead"].dereference())) & 0xFFFFFFFF))
        except gdb.MemoryError:
            pass        # the kernel's half of a ring is not part of a core
        return words


# -------------------------------------------------------------- printing


class OpPrinter:
    """struct gyre_op: what was asked and what came of it."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        op = self.value
        prep = number(op["prep"])
        words = ["by %s" % (function_at(prep) if prep else "no prep")]
        if number(op["timeout_ns"]):
            words.append("timeout %s" % span(number(op["timeout_ns"])))
        if number(op["internal"][0]) & 1:
            words.append("under way")
            if number(op["internal"][0]) & 2:
                words.append("cancel asked for")
        else:
            words.append("%s, res %d, %s" % (op["status"], signed(op["res"]), op["effect"]))
        return "{%s}" % ", ".join(words)


class InboxPrinter:
    """struct gyre__inbox: the bits of its one word, and how much lies in it."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        word = number(self.value["word"])
        bits = [name for bit, name in ((ASLEEP, "asleep"), (IDLE, "idle"), (SEALED, "sealed"),
                                       (ENDED, "ended")) if word & bit]
        first = gdb.Value(word & ~BITS).cast(gdb.lookup_type("struct gyre__batch").pointer())
        bits.append("%d batches" % len(list(chain(first, "next"))))
        return "{%s}" % ", ".join(bits)


def printer_of(value):
    tag = value.type.strip_typedefs().unqualified().tag
    if tag == "gyre_op":
        return OpPrinter(value)
    if tag == "gyre__inbox":
        return InboxPrinter(value)
    return None


def register():
    printer_of.__name__ = "gyre"
    gdb.printing.register_pretty_printer(gdb.current_objfile(), printer_of, replace=True)
    Ops()
    Workers()


register()

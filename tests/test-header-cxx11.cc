/* SPDX-License-Identifier: MIT */
/* gyre.h by itself, first and alone, as pedantic C++11: it compiles, links and runs. */
#include <gyre.h>

#include <cstdio>
#include <cstring>
#include <type_traits>

static_assert(std::is_standard_layout<gyre_op>::value, "gyre_op is a plain struct");
static_assert(std::is_trivial<gyre_options>::value, "gyre_options is a plain struct");
static_assert(GYRE_WORKER(3) == 4, "workers are numbered from 0");

namespace {

int number, failed;

void ok(bool passed, const char *what)
{
	std::printf("%s %d - %s\n", passed ? "ok" : "not ok", ++number, what);
	failed |= !passed;
}

bool options_can_be_made()
{
	gyre_options options = GYRE_OPTIONS_INIT;
	gyre *rt = nullptr;

	options.workers = 1u << 30;
	return options.size == sizeof(options) && options.name == nullptr &&
	       gyre_open(&options, &rt) == GYRE_INVALID && rt == nullptr;
}

bool closures_may_be_lambdas()
{
	gyre_prep_fn *prep = [](io_uring_sqe *, void *) {};
	gyre_op op;

	std::memset(&op, 0, sizeof(op));
	op.prep = prep;
	return gyre_call(nullptr, prep, nullptr, nullptr) == GYRE_NO_REACTOR &&
	       gyre_callv(nullptr, &op, 1) == GYRE_NO_REACTOR;
}

bool names_have_c_linkage()
{
	gyre_status (*close)(gyre *) = &gyre_close;

	return close(nullptr) == GYRE_OK && std::strcmp(gyre_status_name(GYRE_OK), "OK") == 0;
}

}

int main()
{
	std::printf("1..3\n");
	ok(options_can_be_made(), "options_can_be_made");
	ok(closures_may_be_lambdas(), "closures_may_be_lambdas");
	ok(names_have_c_linkage(), "names_have_c_linkage");
	return failed;
}

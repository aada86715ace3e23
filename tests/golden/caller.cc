// The header of a generated library from C++17: sizes, areas that the caller owns, one call on this thread.
#include "text.h"

#include <cstdio>
#include <cstdlib>

int main() { return 0; }

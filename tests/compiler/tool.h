/* Helpers of the tests that run heddle and the programs it makes. */
#ifndef HD_TEST_TOOL_H
#define HD_TEST_TOOL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../compiler/driver/driver.h"
#include "../../compiler/driver/tensor_file.h"

/* What the tests make lies here; made anew by make_folder, kept after a failure. A cmocka group fixture. */
#define FOLDER_OF(test) "build/tests/" test
int make_folder(const char *path);
/* Only the tests whose names fit (with * and ?): this, or else $HEDDLE_ONLY; NULL and not set: all. */
void choose_tests(const char *names);

/* heddle as under test: $HEDDLE or build/heddle. */
const char *heddle(void);
/* " --sanitize" when HEDDLE_SANITIZE is set, else "". */
const char *sanitize(void);

/* Runs a command line, split at spaces; 'single quotes' keep a word together. Returns the exit status (128 + signal). What it
 * printed, on stdout and stderr, is in `said` until the next command. */
extern char *said;
int command(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same; fails the test, showing the command and what it said, unless it exits with 0. */
void must(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The command fails with status 1 and one line that holds `part`. */
void refused(const char *part, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Command line to argv, NULL-terminated, in the arena. */
const char **words(const char *line);

void assert_says(const char *part);
void assert_same_bytes(const char *a, const char *b);
bool same_bytes(const char *a, const char *b);
char *text_of(const char *path);                       /* in the arena; fails the test when it cannot be read */
void write_words(const char *path, size_t bytes);      /* text with something to learn, the same every time */

#endif

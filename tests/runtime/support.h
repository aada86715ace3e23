/* Helpers of the runtime's tests: a folder of their own, and the program run in a child process. */
#ifndef HD_TEST_SUPPORT_H
#define HD_TEST_SUPPORT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/types.h>

#include "../../runtime/app/hd_model.h"

/* Makes a temporary folder and goes there; removed with everything in it by leave_folder. cmocka group fixtures. */
int enter_folder(void **state);
int leave_folder(void **state);

void write_file(const char *path, const void *data, size_t bytes);
unsigned char *read_file(const char *path, size_t *bytes);       /* malloc'ed, NUL-terminated; NULL: not there */
void assert_same_file(const char *a, const char *b);
bool file_exists(const char *path);
void write_text(const char *path, size_t bytes);                 /* text with something to learn, the same every time */

/* Runs the program on `line`, split at spaces, in a child. Returns the exit status (128 + signal). What it printed is in
 * program_out and program_err. */
extern char program_out[1 << 16], program_err[1 << 14];
int program(const char *format, ...) __attribute__((format(printf, 1, 2)));
int call_in_child(void (*function)(const char *), const char *argument);     /* likewise; 0 if it returns */
pid_t program_start(const char *line);                           /* does not wait; prints into the files out and err */
int program_wait(pid_t);
extern size_t program_peak_bytes;                                 /* most memory that the last child had resident */
extern void (*before_program)(void);                             /* run in the child first: limits, environment; NULL */

void assert_contains(const char *text, const char *part);
/* One line on stderr, exit status 1, containing part. */
void assert_refused(int status, const char *part);

#endif

/* Bytes that a kernel call must move, by how far away they are: the bytes that the calls before have moved since these were last
 * touched. What is nearer than a cache's size is found there. Shared by the compiler, which counts, and programs, which measure. */
#ifndef HD_TRAFFIC_H
#define HD_TRAFFIC_H

/* Distance i is less than 2^i times 256 KB, the last one any more. */
enum { HD_DISTANCES = 10 };
static inline double hd_distance(int i) { return 262144.0 * (double)(1 << i); }

typedef struct hd_traffic { double read[HD_DISTANCES], written[HD_DISTANCES]; } hd_traffic;

#endif

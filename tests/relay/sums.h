/* What must hold after every step, whatever happened: everything that is held is counted, and
 * nobody waits for something that will not come. */
#ifndef SUMS_H
#define SUMS_H

#include <stdio.h>
#include <stdlib.h>

struct relay;

#define CHECK(truth) \
    do { \
        if (!(truth)) { \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #truth); \
            abort(); \
        } \
    } while (0)

/* `settled`: a turn has just ended. */
void check_sums(const struct relay *relay, int settled);

#endif

/* The frames that most messages to an application stand in, one function for each dialect: a
 * request or notify of pomelo, a CALL or PUSH of teleport v6, a PULL of v2.5, a message of hotpot.
 *
 * Law: pure functions of bytes. What is not as most are is not taken, and never judged: Python
 * reads it (fastway.dialect), whose short ways these are. What is taken is the same there.
 */
#ifndef FASTWAY_FRAMES_H
#define FASTWAY_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_DEPTH = 60 }; /* lists and maps within one another, in what hotpot's data may be */

struct frame {
    size_t size;     /* bytes of all of it */
    bool asks;       /* an answer is wanted, */
    uint64_t number; /* of that number, where the dialect has one */
    uint8_t codec;   /* teleport's */
    const uint8_t *name, *body;
    size_t name_size, body_size;
};

/* The frame that `left` bytes of `data` begin with; false: it is not whole, or not as most are.
 * A frame, or in hotpot and pomelo what it stands for, is of `limit` bytes at most. */
bool frame_pomelo(const uint8_t *data, size_t left, uint64_t limit, struct frame *frame);
bool frame_teleport(const uint8_t *data, size_t left, uint64_t limit, struct frame *frame);
bool frame_teleport2(const uint8_t *data, size_t left, uint64_t limit, struct frame *frame);

/* The same of a message that comes after a length of 2 or 4 bytes. */
bool frame_hotpot(const uint8_t *data, size_t left, uint64_t limit, unsigned width,
                  struct frame *frame);

/* JSON in which there is nothing to be bounded (fastway.formats): no more brackets than levels that
 * it may have, and no room for more keys than a map may have. */
enum { JSON_LEVELS = 100, JSON_MOST = 6000 };
bool json_is_shallow(const uint8_t *data, size_t size);

/* The same that is ASCII, without null; and without < > & if they are asked for. */
bool json_is_plain(const uint8_t *data, size_t size, bool html);

#endif

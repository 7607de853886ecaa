/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 as in zlib and PNG, eight bytes at a time ("slicing by 8": M. E. Kounavis and F. L. Berry, "A systematic
 * approach to building high performance software-based CRC generators", ISCC 2005). */
#include "model.h"

#include <string.h>

/* table[j][b]: the CRC's change by byte b that is followed by j zero bytes. Made on the stack (8 KiB, some 3 µs), so
 * that the library has no tables to initialise and no way to initialise them twice. */
static void make_table(uint32_t table[8][256]) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int bit = 0; bit < 8; bit++) {
            c = (c >> 1) ^ (0xEDB88320u & (0u - (c & 1u)));
        }
        table[0][b] = c;
    }
    for (int j = 1; j < 8; j++) {
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t c = table[j - 1][b];
            table[j][b] = (c >> 8) ^ table[0][c & 0xFF];
        }
    }
}

static uint32_t load_u32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint32_t gru_crc32(const unsigned char *p, size_t nbytes) {
    uint32_t table[8][256];
    make_table(table);
    uint32_t c = 0xFFFFFFFFu;
    for (; nbytes >= 8; p += 8, nbytes -= 8) {
        uint32_t low = c ^ load_u32(p), high = load_u32(p + 4);
        c = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^ table[4][low >> 24] ^
            table[3][high & 0xFF] ^ table[2][(high >> 8) & 0xFF] ^ table[1][(high >> 16) & 0xFF] ^ table[0][high >> 24];
    }
    for (; nbytes; p++, nbytes--) {
        c = (c >> 8) ^ table[0][(c ^ *p) & 0xFF];
    }
    return c ^ 0xFFFFFFFFu;
}

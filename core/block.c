/* Huge pages by wish (madvise): small ones are as right. */
#include "core/block.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

void *block_new(size_t bytes)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    void *block = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (block && alignment == HUGE_PAGE) {
        madvise(block, bytes, MADV_HUGEPAGE);
    }
    return block;
}

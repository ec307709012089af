/* The guest's memory: one heap that grows upwards, with chunks in order of address and lists of free ones by
 * size (two levels, exact below 256 bytes).
 *
 * What an ordinary run allocates must lie together: each page that it writes to is copied when it is written
 * and restored when the isolate ends. That is most of what a short run costs, so nothing here spreads
 * small allocations over pages of their own, and a run begins in one large free chunk. */

typedef struct Chunk {
    uint32_t before;           /* the size of the chunk before this one, while that is free */
    uint32_t head;             /* its own size, a multiple of 8, and the two flags below */
    struct Chunk *next, *prev; /* in its list, while it is free */
} Chunk;

#define USED 1u                /* this chunk is in use */
#define BEFORE_USED 2u         /* the chunk before it is */
#define FLAGS 7u
#define HEAD 8u                /* where the caller's bytes begin; `before` of the next chunk is theirs too */
#define LEAST 16u
#define ROWS 24
#define COLUMNS 32
#define WASM_PAGE 65536u

static Chunk *heap_free[ROWS][COLUMNS];
static uint32_t heap_rows, heap_columns[ROWS];
/* Small chunks that were freed, by size, to be used again as they are. They count as in use. */
static Chunk *heap_recent[COLUMNS];
static Chunk *heap_end;        /* a chunk without content that is always in use */

extern unsigned char __heap_base;

static inline uint32_t chunk_size(const Chunk *c) { return c->head & ~FLAGS; }
static inline Chunk *chunk_after(Chunk *c) { return (Chunk *)((char *)c + chunk_size(c)); }
static inline Chunk *chunk_of(const void *p) { return (Chunk *)((char *)p - HEAD); }
static inline void *chunk_bytes(Chunk *c) { return (char *)c + HEAD; }

/* The list that a chunk of this size belongs to. */
static inline void heap_place(uint32_t size, uint32_t *row, uint32_t *column)
{
    if (size < COLUMNS * 8) {
        *row = 0;
        *column = size >> 3;
    } else {
        uint32_t top = 31 - __builtin_clz(size);
        *row = top - 7;
        *column = (size >> (top - 5)) & (COLUMNS - 1);
    }
}

static inline void heap_insert(Chunk *c)
{
    uint32_t row, column;
    heap_place(chunk_size(c), &row, &column);
    Chunk *first = heap_free[row][column];
    c->next = first;
    c->prev = NULL;
    if (first)
        first->prev = c;
    heap_free[row][column] = c;
    heap_columns[row] |= 1u << column;
    heap_rows |= 1u << row;
}

static inline void heap_remove(Chunk *c)
{
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev) {
        c->prev->next = c->next;
        return;
    }
    uint32_t row, column;
    heap_place(chunk_size(c), &row, &column);
    heap_free[row][column] = c->next;
    if (!c->next) {
        heap_columns[row] &= ~(1u << column);
        if (!heap_columns[row])
            heap_rows &= ~(1u << row);
    }
}

/* Writes down that `c` is free and has this size; the chunk before it is in use. */
static inline void heap_mark_free(Chunk *c, uint32_t size)
{
    c->head = size | BEFORE_USED;
    Chunk *after = chunk_after(c);
    after->before = size;
    after->head &= ~BEFORE_USED;
    heap_insert(c);
}

/* More memory from the host, as a free chunk at the end. The host stops the program at its limit. */
static bool heap_grow(uint32_t size)
{
    uint32_t have = __builtin_wasm_memory_size(0) * WASM_PAGE, need = size + 2 * LEAST;
    uint32_t step = (have >> 6) & ~(WASM_PAGE - 1);
    if (!heap_end) {
        /* What the linker left of the last page comes first. */
        heap_end = (Chunk *)(((uintptr_t)&__heap_base + 7) & ~7u);
        heap_end->head = USED | BEFORE_USED;
    } else if ((uintptr_t)heap_end + LEAST != have) {
        __builtin_trap(); /* nobody else may grow it */
    }
    if (need < step)
        need = step;
    need = (need + WASM_PAGE - 1) / WASM_PAGE;
    if (__builtin_wasm_memory_grow(0, need) == SIZE_MAX)
        return false;
    /* The old end becomes the new chunk. */
    Chunk *c = heap_end;
    uint32_t bytes = have + need * WASM_PAGE - (uint32_t)(uintptr_t)c - LEAST, flags = c->head & BEFORE_USED;
    heap_end = (Chunk *)((char *)c + bytes);
    heap_end->head = USED | BEFORE_USED;
    if (!flags) {
        bytes += c->before;
        c = (Chunk *)((char *)c - c->before);
        heap_remove(c);
    }
    heap_mark_free(c, bytes);
    return true;
}

static Chunk *heap_find(uint32_t size)
{
    uint32_t row, column, wanted = size;
    /* Every chunk of the list that is looked at must be large enough. */
    if (wanted >= COLUMNS * 8)
        wanted += (1u << (31 - __builtin_clz(wanted) - 5)) - 1;
    heap_place(wanted, &row, &column);
    if (row >= ROWS)
        return NULL;
    uint32_t columns = heap_columns[row] & (~0u << column);
    if (!columns) {
        uint32_t rows = row + 1 < ROWS ? heap_rows & (~0u << (row + 1)) : 0;
        if (!rows)
            return NULL;
        row = __builtin_ctz(rows);
        columns = heap_columns[row];
    }
    return heap_free[row][__builtin_ctz(columns)];
}

/* Takes `size` bytes of a chunk that is in no list; what is over is free again. */
static inline void *heap_take(Chunk *c, uint32_t size)
{
    uint32_t have = chunk_size(c), flags = c->head & BEFORE_USED;
    if (have - size >= LEAST) {
        c->head = size | USED | flags;
        heap_mark_free(chunk_after(c), have - size);
    } else {
        c->head = have | USED | flags;
        chunk_after(c)->head |= BEFORE_USED;
    }
    return chunk_bytes(c);
}

/* The size of a chunk for so many bytes; 0 when there cannot be one. */
static inline uint32_t heap_size(size_t bytes)
{
    if (bytes > 0x7fff0000u)
        return 0;
    return bytes <= LEAST - 4 ? LEAST : (uint32_t)(bytes + 4 + 7) & ~7u;
}

/* Frees a chunk, together with free ones on both sides of it. */
static void heap_merge(Chunk *c)
{
    Chunk *after = chunk_after(c);
    uint32_t size = chunk_size(c);
    if (!(after->head & USED)) {
        heap_remove(after);
        size += chunk_size(after);
    }
    if (!(c->head & BEFORE_USED)) {
        size += c->before;
        c = (Chunk *)((char *)c - c->before);
        heap_remove(c);
    }
    heap_mark_free(c, size);
}

static void heap_merge_recent(void)
{
    for (uint32_t i = 0; i < COLUMNS; i++) {
        Chunk *c = heap_recent[i], *next;
        for (heap_recent[i] = NULL; c; c = next) {
            next = c->next;
            heap_merge(c);
        }
    }
}

static __attribute__((noinline)) void *heap_search(uint32_t size)
{
    Chunk *c;
    if (!size)
        return NULL;
    if (!(c = heap_find(size))) {
        heap_merge_recent();
        while (!(c = heap_find(size)))
            if (!heap_grow(size + (size >> 4)))
                return NULL;
    }
    heap_remove(c);
    return heap_take(c, size);
}

static inline void *heap_malloc(size_t bytes)
{
    uint32_t size = heap_size(bytes);
    if (size < COLUMNS * 8) {
        Chunk *c = heap_recent[size >> 3];
        if (c) {
            heap_recent[size >> 3] = c->next;
            return chunk_bytes(c);
        }
    }
    return heap_search(size);
}

static inline void heap_release(void *p)
{
    if (!p)
        return;
    Chunk *c = chunk_of(p);
    uint32_t size = chunk_size(c);
    if (size < COLUMNS * 8) {
        c->next = heap_recent[size >> 3];
        heap_recent[size >> 3] = c;
    } else {
        heap_merge(c);
    }
}

static void *heap_calloc(size_t count, size_t each)
{
    size_t bytes;
    void *p;
    if (__builtin_mul_overflow(count, each, &bytes) || !(p = heap_malloc(bytes)))
        return NULL;
    return memset(p, 0, bytes);
}

static size_t heap_usable(const void *p)
{
    return p ? chunk_size(chunk_of(p)) - 4 : 0;
}

static void *heap_realloc(void *p, size_t bytes)
{
    uint32_t size = heap_size(bytes), have;
    Chunk *c, *after;
    void *moved;
    if (!p)
        return heap_malloc(bytes);
    if (!size)
        return NULL;
    c = chunk_of(p);
    have = chunk_size(c);
    if (size <= have) {
        /* Little is won by giving a little back. */
        if (have >= COLUMNS * 16 && have - size >= have / 4) {
            after = chunk_after(c);
            if (!(after->head & USED)) {
                heap_remove(after);
                c->head += chunk_size(after);
                chunk_after(c)->head |= BEFORE_USED;
            }
            heap_take(c, size);
        }
        return p;
    }
    after = chunk_after(c);
    if (size >= COLUMNS * 8 && !(after->head & USED) && have + chunk_size(after) >= size) {
        heap_remove(after);
        c->head += chunk_size(after);
        chunk_after(c)->head |= BEFORE_USED;
        return heap_take(c, size);
    }
    moved = heap_malloc(bytes);
    if (moved) {
        memcpy(moved, p, have - 4);
        heap_release(p);
    }
    return moved;
}

/* What booting left free between its own chunks is not used again: a run that filled those holes would write
   to many pages. At least `room` bytes at the end are free, so that an ordinary run need not grow. */
static void heap_seal(uint32_t room)
{
    heap_merge_recent();
    heap_release(heap_malloc(room));
    for (uint32_t row = 0; row < ROWS; row++) {
        for (uint32_t column = 0; column < COLUMNS; column++) {
            for (Chunk *c = heap_free[row][column], *next; c; c = next) {
                next = c->next;
                if (chunk_after(c) == heap_end)
                    continue;
                heap_remove(c);
                c->head |= USED;
                chunk_after(c)->head |= BEFORE_USED;
            }
        }
    }
}

#define malloc heap_malloc
#define calloc heap_calloc
#define realloc heap_realloc
#define free heap_release
#define malloc_usable_size heap_usable

/* The guest: QuickJS-NG and what joins it to the host, as one translation unit, so that the shim
 * reaches the engine's internals (random state, map records, error prototypes).
 *
 * Every export returns with an empty stack. Host calls only enqueue, so the linear memory at that
 * moment is the whole continuation of the program. All messages use the wire format of
 * `src/isolate/wire.rs`. */
#define _GNU_SOURCE 1
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "heap.c"

/* The engine believes that WASI has no stack to check; ours has, and it is checked. */
#undef __wasi__
#define __linux__ 1
#define EMSCRIPTEN 1
#ifndef FE_DOWNWARD
#define FE_DOWNWARD 0
#define FE_UPWARD 0
#endif
#include "quickjs.c"
/* The engine forbids these names to itself and forgets them at its end. */
#define malloc heap_malloc
#define realloc heap_realloc
#define free heap_release
#include "libregexp.c"
#include "libunicode.c"
#include "dtoa.c"
#undef __linux__

#define IMPORT(name) __attribute__((import_module("host"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

IMPORT("call") void host_call(uint32_t id, const void *ptr, uint32_t len);
IMPORT("timer") void host_timer(uint32_t id, double ms);
IMPORT("cancel") void host_cancel(uint32_t id);
IMPORT("log") void host_log(uint32_t level, const void *ptr, uint32_t len);
IMPORT("done") void host_done(uint32_t failed, const void *ptr, uint32_t len);
/* Never returns: the host stops the program. 0: arguments of a call, 1: result. */
IMPORT("excess") void host_excess(uint32_t what, uint32_t len);

#include "sha.c"

static JSRuntime *rt;
static JSContext *cx;
static double now_ms = 1;
static uint32_t max_call, max_output, next_id;
static uint8_t seed[32];
static uint64_t drawn;
static JSValue run_fn, main_promise, report_fn;

/* ---- time: the host's, and it stands still while code runs ---- */

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    (void)tz;
    tv->tv_sec = (time_t)(now_ms / 1000);
    tv->tv_usec = (long)((now_ms - (double)tv->tv_sec * 1000) * 1000);
    return 0;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    ts->tv_sec = (time_t)(now_ms / 1000);
    ts->tv_nsec = (long)((now_ms - (double)ts->tv_sec * 1000) * 1000000);
    return 0;
}

struct tm *localtime_r(const time_t *restrict t, struct tm *restrict tm)
{
    return gmtime_r(t, tm);
}

/* ---- writing ---- */

typedef struct {
    uint8_t *p;
    size_t len, cap, max;
    int depth, max_depth;
    bool refs;            /* shared and cyclic values as references, as structuredClone needs them */
    void **seen;          /* open addressing: object, index */
    uint32_t *seen_at;
    size_t seen_cap, seen_len;
    uint32_t objects;
} Out;

static void out_free(Out *o)
{
    free(o->p);
    free(o->seen);
    free(o->seen_at);
}

static int clone_error(JSContext *ctx, const char *what)
{
    JSValue ctor = JS_GetPropertyStr(ctx, ctx->global_obj, "DOMException"), e;
    JSValue args[2];
    args[0] = JS_NewString(ctx, what);
    args[1] = JS_NewString(ctx, "DataCloneError");
    e = JS_CallConstructor(ctx, ctor, 2, vc(args));
    JS_FreeValue(ctx, args[0]);
    JS_FreeValue(ctx, args[1]);
    JS_FreeValue(ctx, ctor);
    if (!JS_IsException(e))
        JS_Throw(ctx, e);
    return -1;
}

/* 0, or -1 when the message is over its limit or there is no memory. */
static int w_raw(Out *o, const void *data, size_t len)
{
    if (o->len + len > o->max) {
        o->len = o->max + 1;
        return -1;
    }
    if (o->len + len > o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 256;
        while (cap < o->len + len)
            cap *= 2;
        uint8_t *p = realloc(o->p, cap);
        if (!p)
            return -1;
        o->p = p;
        o->cap = cap;
    }
    memcpy(o->p + o->len, data, len);
    o->len += len;
    return 0;
}

static int w_u8(Out *o, uint8_t v) { return w_raw(o, &v, 1); }

static int w_var(Out *o, uint64_t v)
{
    uint8_t b[10];
    int n = 0;
    do {
        b[n] = (v & 127) | (v > 127 ? 128 : 0);
        v >>= 7;
        n++;
    } while (v);
    return w_raw(o, b, n);
}

static int w_bytes(Out *o, const void *data, size_t len)
{
    return w_var(o, len) || w_raw(o, data, len) ? -1 : 0;
}

static int w_f64(Out *o, double v) { return w_raw(o, &v, 8); }

static int w_str(Out *o, JSContext *ctx, JSValueConst v)
{
    size_t len;
    const char *s = JS_ToCStringLen(ctx, &len, v);
    int r;
    if (!s)
        return -1;
    r = w_bytes(o, s, len);
    JS_FreeCString(ctx, s);
    return r;
}

enum { T_UNDEFINED, T_NULL, T_FALSE, T_TRUE, T_INT, T_F64, T_BIGINT, T_STRING, T_DATE, T_BUFFER,
       T_TYPED, T_ARRAY, T_OBJECT, T_MAP, T_SET, T_ERROR, T_REGEXP, T_REF, T_HOLE };

/* 1 when a reference was written instead of the object, 0 when it is new, -1 on error. */
static int note_object(Out *o, JSContext *ctx, void *obj)
{
    size_t i;
    if (!o->refs)
        return 0;
    if (o->seen_len * 2 >= o->seen_cap) {
        size_t cap = o->seen_cap ? o->seen_cap * 2 : 64;
        void **keys = calloc(cap, sizeof(void *));
        uint32_t *at = calloc(cap, sizeof(uint32_t));
        if (!keys || !at) {
            free(keys);
            free(at);
            JS_ThrowOutOfMemory(ctx);
            return -1;
        }
        for (size_t k = 0; k < o->seen_cap; k++) {
            if (!o->seen[k])
                continue;
            for (i = ((uintptr_t)o->seen[k] >> 3) * 2654435761u & (cap - 1); keys[i]; i = (i + 1) & (cap - 1)) {}
            keys[i] = o->seen[k];
            at[i] = o->seen_at[k];
        }
        free(o->seen);
        free(o->seen_at);
        o->seen = keys;
        o->seen_at = at;
        o->seen_cap = cap;
    }
    for (i = ((uintptr_t)obj >> 3) * 2654435761u & (o->seen_cap - 1); o->seen[i]; i = (i + 1) & (o->seen_cap - 1)) {
        if (o->seen[i] == obj)
            return w_u8(o, T_REF) || w_var(o, o->seen_at[i]) ? -1 : 1;
    }
    o->seen[i] = obj;
    o->seen_at[i] = o->objects++;
    o->seen_len++;
    return 0;
}

static int encode(Out *o, JSContext *ctx, JSValueConst v);

static int encode_prop(Out *o, JSContext *ctx, JSValueConst obj, JSAtom atom)
{
    JSValue v = JS_GetProperty(ctx, obj, atom);
    int r;
    if (JS_IsException(v))
        return -1;
    r = encode(o, ctx, v);
    JS_FreeValue(ctx, v);
    return r;
}

static int encode_object(Out *o, JSContext *ctx, JSValueConst obj)
{
    JSPropertyEnum *tab;
    uint32_t len, i;
    int r = 0;
    if (JS_GetOwnPropertyNames(ctx, &tab, &len, obj, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    if (w_u8(o, T_OBJECT) || w_var(o, len))
        r = -1;
    for (i = 0; i < len && !r; i++) {
        JSValue key = JS_AtomToString(ctx, tab[i].atom);
        r = JS_IsException(key) || w_str(o, ctx, key) || encode_prop(o, ctx, obj, tab[i].atom);
        JS_FreeValue(ctx, key);
    }
    JS_FreePropertyEnum(ctx, tab, len);
    return r ? -1 : 0;
}

static int encode_array(Out *o, JSContext *ctx, JSValueConst obj)
{
    int64_t len, i;
    if (js_get_length64(ctx, &len, obj))
        return -1;
    if (w_u8(o, T_ARRAY) || w_var(o, len))
        return -1;
    for (i = 0; i < len; i++) {
        JSValue v;
        int r;
        JSAtom atom = JS_NewAtomInt64(ctx, i);
        if (atom == JS_ATOM_NULL)
            return -1;
        r = JS_HasProperty(ctx, obj, atom);
        if (r <= 0) {
            JS_FreeAtom(ctx, atom);
            if (r < 0 || w_u8(o, T_HOLE))
                return -1;
            continue;
        }
        v = JS_GetProperty(ctx, obj, atom);
        JS_FreeAtom(ctx, atom);
        if (JS_IsException(v))
            return -1;
        r = encode(o, ctx, v);
        JS_FreeValue(ctx, v);
        if (r)
            return -1;
    }
    return 0;
}

static int encode_map(Out *o, JSContext *ctx, JSObject *p)
{
    JSMapState *s = p->u.map_state;
    struct list_head *el;
    bool map = p->class_id == JS_CLASS_MAP;
    uint32_t n = s->record_count, i = 0;
    /* Getters of the values may change the map: work on a copy of what it holds now. */
    JSValue *items = malloc(sizeof(JSValue) * (n ? n : 1) * 2);
    int r = 0;
    if (!items) {
        JS_ThrowOutOfMemory(ctx);
        return -1;
    }
    list_for_each(el, &s->records) {
        JSMapRecord *mr = list_entry(el, JSMapRecord, link);
        if (mr->empty || i >= n)
            continue;
        items[2 * i] = js_dup(mr->key);
        items[2 * i + 1] = map ? js_dup(mr->value) : JS_UNDEFINED;
        i++;
    }
    n = i;
    if (w_u8(o, map ? T_MAP : T_SET) || w_var(o, n))
        r = -1;
    for (i = 0; i < n; i++) {
        if (!r)
            r = encode(o, ctx, items[2 * i]);
        if (!r && map)
            r = encode(o, ctx, items[2 * i + 1]);
        JS_FreeValue(ctx, items[2 * i]);
        JS_FreeValue(ctx, items[2 * i + 1]);
    }
    free(items);
    return r;
}

static int w_field(Out *o, JSContext *ctx, JSValueConst obj, const char *name)
{
    JSValue v = JS_GetPropertyStr(ctx, obj, name);
    int r;
    if (JS_IsException(v))
        return -1;
    if (JS_IsObject(v) || JS_IsSymbol(v) || JS_IsUndefined(v) || JS_IsNull(v))
        r = w_var(o, 0);
    else
        r = w_str(o, ctx, v);
    JS_FreeValue(ctx, v);
    return r;
}

static int encode_error(Out *o, JSContext *ctx, JSValueConst obj)
{
    static const char *const hidden[] = { "cause", "errors" };
    JSPropertyEnum *tab;
    uint32_t len, i, extra = 0;
    bool has[2];
    int r;
    if (w_u8(o, T_ERROR) || w_field(o, ctx, obj, "name") || w_field(o, ctx, obj, "message")
        || w_field(o, ctx, obj, "stack"))
        return -1;
    for (i = 0; i < 2; i++) {
        JSAtom atom = JS_NewAtom(ctx, hidden[i]);
        JSPropertyDescriptor d;
        r = JS_GetOwnProperty(ctx, &d, obj, atom);
        JS_FreeAtom(ctx, atom);
        if (r < 0)
            return -1;
        has[i] = r && !(d.flags & JS_PROP_ENUMERABLE);
        extra += has[i];
        if (r)
            js_free_desc(ctx, &d);
    }
    if (JS_GetOwnPropertyNames(ctx, &tab, &len, obj, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    r = w_var(o, len + extra);
    for (i = 0; i < 2 && !r; i++) {
        if (has[i]) {
            JSAtom atom = JS_NewAtom(ctx, hidden[i]);
            r = w_bytes(o, hidden[i], strlen(hidden[i])) || encode_prop(o, ctx, obj, atom);
            JS_FreeAtom(ctx, atom);
        }
    }
    for (i = 0; i < len && !r; i++) {
        JSValue key = JS_AtomToString(ctx, tab[i].atom);
        r = JS_IsException(key) || w_str(o, ctx, key) || encode_prop(o, ctx, obj, tab[i].atom);
        JS_FreeValue(ctx, key);
    }
    JS_FreePropertyEnum(ctx, tab, len);
    return r ? -1 : 0;
}

static int encode_view(Out *o, JSContext *ctx, JSValueConst v, uint8_t kind)
{
    size_t off = 0, len = 0, size = 0;
    uint8_t *data;
    int r;
    JSValue buffer;
    if (kind == JS_CLASS_DATAVIEW - JS_CLASS_UINT8C_ARRAY) {
        JSValue a = JS_GetPropertyStr(ctx, v, "byteOffset"), b;
        int64_t i = 0, j = 0;
        if (JS_IsException(a) || JS_ToInt64(ctx, &i, a))
            return -1;
        b = JS_GetPropertyStr(ctx, v, "byteLength");
        if (JS_IsException(b) || JS_ToInt64(ctx, &j, b))
            return -1;
        off = i;
        len = j;
        buffer = JS_GetPropertyStr(ctx, v, "buffer");
    } else {
        buffer = JS_GetTypedArrayBuffer(ctx, v, &off, &len, NULL);
    }
    if (JS_IsException(buffer))
        return -1;
    data = JS_GetArrayBuffer(ctx, &size, buffer);
    if ((!data && size) || off > size || len > size - off)
        r = clone_error(ctx, "the buffer of the array is detached or too short");
    else
        r = w_u8(o, T_TYPED) || w_u8(o, kind) || w_bytes(o, data ? data + off : (uint8_t *)"", len);
    JS_FreeValue(ctx, buffer);
    return r ? -1 : 0;
}

static int encode_deep(Out *o, JSContext *ctx, JSValueConst v)
{
    JSObject *p = JS_VALUE_GET_OBJ(v);
    size_t len;
    uint8_t *data;
    double d;
    int r = note_object(o, ctx, p);
    if (r)
        return r < 0 ? -1 : 0;
    switch (p->class_id) {
    case JS_CLASS_ARRAY:
        return encode_array(o, ctx, v);
    case JS_CLASS_ERROR:
    case JS_CLASS_DOM_EXCEPTION:
        return encode_error(o, ctx, v);
    case JS_CLASS_NUMBER:
    case JS_CLASS_STRING:
    case JS_CLASS_BOOLEAN:
    case JS_CLASS_BIG_INT:
        o->objects -= o->refs; /* boxes come out as what they hold */
        return encode(o, ctx, p->u.object_data);
    case JS_CLASS_DATE:
        d = JS_VALUE_GET_TAG(p->u.object_data) == JS_TAG_INT ? JS_VALUE_GET_INT(p->u.object_data)
                                                             : JS_VALUE_GET_FLOAT64(p->u.object_data);
        return w_u8(o, T_DATE) || w_f64(o, d) ? -1 : 0;
    case JS_CLASS_REGEXP: {
        JSValue a = JS_GetPropertyStr(ctx, v, "source"), b = JS_GetPropertyStr(ctx, v, "flags");
        r = JS_IsException(a) || JS_IsException(b) || w_u8(o, T_REGEXP) || w_str(o, ctx, a) || w_str(o, ctx, b);
        JS_FreeValue(ctx, a);
        JS_FreeValue(ctx, b);
        return r ? -1 : 0;
    }
    case JS_CLASS_ARRAY_BUFFER:
        data = JS_GetArrayBuffer(ctx, &len, v);
        if (!data && len)
            return clone_error(ctx, "the buffer is detached");
        return w_u8(o, T_BUFFER) || w_bytes(o, data ? data : (uint8_t *)"", data ? len : 0) ? -1 : 0;
    case JS_CLASS_MAP:
    case JS_CLASS_SET:
        return encode_map(o, ctx, p);
    case JS_CLASS_PROMISE:
        return clone_error(ctx, "a promise cannot be passed on: await it first");
    case JS_CLASS_PROXY:
        return clone_error(ctx, "a Proxy cannot be passed on");
    case JS_CLASS_SYMBOL:
    case JS_CLASS_WEAKMAP:
    case JS_CLASS_WEAKSET:
    case JS_CLASS_WEAK_REF:
    case JS_CLASS_GENERATOR:
    case JS_CLASS_ASYNC_GENERATOR:
    case JS_CLASS_MODULE_NS:
    case JS_CLASS_SHARED_ARRAY_BUFFER:
        if (p->class_id == JS_CLASS_MODULE_NS)
            return encode_object(o, ctx, v);
        return clone_error(ctx, "an object of this class cannot be passed on");
    default:
        if (p->class_id >= JS_CLASS_UINT8C_ARRAY && p->class_id <= JS_CLASS_DATAVIEW)
            return encode_view(o, ctx, v, p->class_id - JS_CLASS_UINT8C_ARRAY);
        if (JS_IsFunction(ctx, v))
            return clone_error(ctx, "a function cannot be passed on");
        return encode_object(o, ctx, v);
    }
}

/* 0, or -1 with a pending exception; or over the limit, then `len > max`. */
static int encode(Out *o, JSContext *ctx, JSValueConst v)
{
    int r;
    switch (JS_VALUE_GET_NORM_TAG(v)) {
    case JS_TAG_UNDEFINED:
        return w_u8(o, T_UNDEFINED);
    case JS_TAG_NULL:
        return w_u8(o, T_NULL);
    case JS_TAG_BOOL:
        return w_u8(o, JS_VALUE_GET_BOOL(v) ? T_TRUE : T_FALSE);
    case JS_TAG_INT: {
        int32_t i = JS_VALUE_GET_INT(v);
        return w_u8(o, T_INT) || w_var(o, ((uint32_t)i << 1) ^ (uint32_t)(i >> 31)) ? -1 : 0;
    }
    case JS_TAG_FLOAT64:
        return w_u8(o, T_F64) || w_f64(o, JS_VALUE_GET_FLOAT64(v)) ? -1 : 0;
    case JS_TAG_BIG_INT:
    case JS_TAG_SHORT_BIG_INT:
        return w_u8(o, T_BIGINT) || w_str(o, ctx, v) ? -1 : 0;
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        return w_u8(o, T_STRING) || w_str(o, ctx, v) ? -1 : 0;
    case JS_TAG_OBJECT:
        if (js_check_stack_overflow(ctx->rt, 4096)) {
            JS_ThrowStackOverflow(ctx);
            return -1;
        }
        if (++o->depth > o->max_depth)
            return clone_error(ctx, "the value refers to itself, or is nested too deeply, to be passed on");
        r = encode_deep(o, ctx, v);
        o->depth--;
        return r;
    default:
        return clone_error(ctx, "a symbol cannot be passed on");
    }
}

/* ---- reading ---- */

typedef struct {
    const uint8_t *p, *end;
    bool bad;
    int depth;
    JSValue *objects;     /* with references only */
    uint32_t objects_len, objects_cap;
    bool refs;
} In;

static uint8_t r_u8(In *in)
{
    if (in->p >= in->end) {
        in->bad = true;
        return 0;
    }
    return *in->p++;
}

static uint64_t r_var(In *in)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b = r_u8(in);
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128))
            return v;
    }
    in->bad = true;
    return 0;
}

static const uint8_t *r_bytes(In *in, size_t *len)
{
    uint64_t n = r_var(in);
    const uint8_t *p = in->p;
    if (n > (uint64_t)(in->end - in->p)) {
        in->bad = true;
        n = 0;
    }
    in->p += n;
    *len = n;
    return p;
}

static double r_f64(In *in)
{
    double v = 0;
    if (in->end - in->p < 8)
        in->bad = true;
    else {
        memcpy(&v, in->p, 8);
        in->p += 8;
    }
    return v;
}

static JSValue r_str(In *in, JSContext *ctx)
{
    size_t len;
    const uint8_t *p = r_bytes(in, &len);
    return JS_NewStringLen(ctx, (const char *)p, len);
}

static JSValue decode(In *in, JSContext *ctx);

static int remember(In *in, JSContext *ctx, JSValueConst v)
{
    if (!in->refs)
        return 0;
    if (in->objects_len == in->objects_cap) {
        uint32_t cap = in->objects_cap ? in->objects_cap * 2 : 32;
        JSValue *p = realloc(in->objects, cap * sizeof(JSValue));
        if (!p) {
            JS_ThrowOutOfMemory(ctx);
            return -1;
        }
        in->objects = p;
        in->objects_cap = cap;
    }
    in->objects[in->objects_len++] = js_dup(v);
    return 0;
}

static JSValue decode_error(In *in, JSContext *ctx)
{
    static const char *const names[] = { "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError",
                                         "URIError", "InternalError", "AggregateError" };
    size_t name_len, len, i, k;
    const char *name = (const char *)r_bytes(in, &name_len);
    JSValueConst proto = ctx->class_proto[JS_CLASS_ERROR];
    bool known = name_len == 5 && !memcmp(name, "Error", 5);
    JSValue obj, v;
    for (i = 0; i < countof(names); i++) {
        if (strlen(names[i]) == name_len && !memcmp(name, names[i], name_len)) {
            proto = ctx->native_error_proto[i];
            known = true;
        }
    }
    /* No stack yet: the engine writes it where the error is thrown, which is the author's await. */
    obj = JS_NewObjectProtoClass(ctx, proto, JS_CLASS_ERROR);
    if (JS_IsException(obj) || remember(in, ctx, obj))
        return JS_EXCEPTION;
    JS_DefinePropertyValueStr(ctx, obj, "message", r_str(in, ctx), JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
    v = r_str(in, ctx);
    if (in->refs)
        JS_DefinePropertyValueStr(ctx, obj, "stack", v, JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
    else
        JS_FreeValue(ctx, v);
    if (!known && name_len)
        JS_DefinePropertyValueStr(ctx, obj, "name", JS_NewStringLen(ctx, name, name_len),
                                  JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
    len = r_var(in);
    for (k = 0; k < len && !in->bad; k++) {
        size_t n;
        const char *key = (const char *)r_bytes(in, &n);
        bool hidden = (n == 5 && !memcmp(key, "cause", 5)) || (n == 6 && !memcmp(key, "errors", 6));
        JSAtom atom = JS_NewAtomLen(ctx, key, n);
        v = decode(in, ctx);
        if (JS_IsException(v)
            || JS_DefinePropertyValue(ctx, obj, atom, v,
                                      JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE | (hidden ? 0 : JS_PROP_ENUMERABLE)) < 0) {
            JS_FreeAtom(ctx, atom);
            JS_FreeValue(ctx, obj);
            return JS_EXCEPTION;
        }
        JS_FreeAtom(ctx, atom);
    }
    return obj;
}

static JSValue decode_view(In *in, JSContext *ctx)
{
    uint8_t kind = r_u8(in);
    size_t len;
    const uint8_t *p = r_bytes(in, &len);
    JSValue buffer, v;
    if (kind > JS_CLASS_DATAVIEW - JS_CLASS_UINT8C_ARRAY) {
        in->bad = true;
        return JS_UNDEFINED;
    }
    buffer = JS_NewArrayBufferCopy(ctx, p, len);
    if (JS_IsException(buffer))
        return buffer;
    if (kind == JS_CLASS_DATAVIEW - JS_CLASS_UINT8C_ARRAY)
        v = js_dataview_constructor(ctx, JS_UNDEFINED, 1, vc(&buffer));
    else
        v = JS_NewTypedArray(ctx, 1, vc(&buffer), kind);
    JS_FreeValue(ctx, buffer);
    if (!JS_IsException(v) && remember(in, ctx, v)) {
        JS_FreeValue(ctx, v);
        return JS_EXCEPTION;
    }
    return v;
}

static JSValue decode_items(In *in, JSContext *ctx, uint8_t tag)
{
    uint64_t len = r_var(in), i;
    JSValue obj, pair[2], r;
    switch (tag) {
    case T_ARRAY:
        obj = JS_NewArray(ctx);
        break;
    case T_OBJECT:
        obj = JS_NewObject(ctx);
        break;
    default:
        obj = js_map_constructor(ctx, JS_UNDEFINED, 0, NULL, tag == T_SET ? MAGIC_SET : 0);
    }
    if (JS_IsException(obj) || remember(in, ctx, obj))
        return JS_EXCEPTION;
    /* Every item has at least one byte. */
    if (len > (uint64_t)(in->end - in->p)) {
        in->bad = true;
        return obj;
    }
    for (i = 0; i < len && !in->bad; i++) {
        int ok = 0;
        if (tag == T_ARRAY) {
            if (in->p < in->end && *in->p == T_HOLE) {
                in->p++;
                continue;
            }
            pair[0] = decode(in, ctx);
            ok = JS_IsException(pair[0]) ? -1 : JS_DefinePropertyValueInt64(ctx, obj, i, pair[0], JS_PROP_C_W_E);
        } else if (tag == T_OBJECT) {
            size_t n;
            const char *key = (const char *)r_bytes(in, &n);
            JSAtom atom = JS_NewAtomLen(ctx, key, n);
            pair[0] = decode(in, ctx);
            ok = JS_IsException(pair[0]) ? -1 : JS_DefinePropertyValue(ctx, obj, atom, pair[0], JS_PROP_C_W_E);
            JS_FreeAtom(ctx, atom);
        } else {
            pair[0] = decode(in, ctx);
            pair[1] = tag == T_MAP ? decode(in, ctx) : JS_UNDEFINED;
            r = JS_IsException(pair[0]) || JS_IsException(pair[1])
                    ? JS_EXCEPTION
                    : js_map_set(ctx, obj, 2, vc(pair), tag == T_SET ? MAGIC_SET : 0);
            ok = JS_IsException(r) ? -1 : 0;
            JS_FreeValue(ctx, r);
            JS_FreeValue(ctx, pair[0]);
            JS_FreeValue(ctx, pair[1]);
        }
        if (ok < 0) {
            JS_FreeValue(ctx, obj);
            return JS_EXCEPTION;
        }
    }
    if (tag == T_ARRAY && len <= UINT32_MAX) {
        JSValue n = js_uint32(len);
        JS_SetPropertyStr(ctx, obj, "length", n);
    }
    return obj;
}

static JSValue decode_tag(In *in, JSContext *ctx, uint8_t tag)
{
    JSValue v, args[2];
    size_t len;
    const uint8_t *p;
    uint64_t n;
    switch (tag) {
    case T_UNDEFINED:
        return JS_UNDEFINED;
    case T_NULL:
        return JS_NULL;
    case T_FALSE:
        return JS_FALSE;
    case T_TRUE:
        return JS_TRUE;
    case T_INT:
        n = r_var(in);
        return js_int32((int32_t)((uint32_t)n >> 1) ^ -(int32_t)(n & 1));
    case T_F64:
        return js_number(r_f64(in));
    case T_BIGINT:
        v = r_str(in, ctx);
        args[0] = JS_StringToBigIntErr(ctx, v);
        return args[0];
    case T_STRING:
        return r_str(in, ctx);
    case T_DATE:
        v = JS_NewDate(ctx, r_f64(in));
        break;
    case T_BUFFER:
        p = r_bytes(in, &len);
        v = JS_NewArrayBufferCopy(ctx, p, len);
        break;
    case T_REGEXP:
        args[0] = r_str(in, ctx);
        args[1] = r_str(in, ctx);
        v = JS_CallConstructor(ctx, ctx->regexp_ctor, 2, vc(args));
        JS_FreeValue(ctx, args[0]);
        JS_FreeValue(ctx, args[1]);
        break;
    case T_TYPED:
        return decode_view(in, ctx);
    case T_ARRAY:
    case T_OBJECT:
    case T_MAP:
    case T_SET:
        return decode_items(in, ctx, tag);
    case T_ERROR:
        return decode_error(in, ctx);
    case T_REF:
        n = r_var(in);
        if (n < in->objects_len)
            return js_dup(in->objects[n]);
        in->bad = true;
        return JS_UNDEFINED;
    default:
        in->bad = true;
        return JS_UNDEFINED;
    }
    if (!JS_IsException(v) && remember(in, ctx, v)) {
        JS_FreeValue(ctx, v);
        return JS_EXCEPTION;
    }
    return v;
}

static JSValue decode(In *in, JSContext *ctx)
{
    JSValue v;
    if (js_check_stack_overflow(ctx->rt, 4096))
        return JS_ThrowStackOverflow(ctx);
    v = decode_tag(in, ctx, r_u8(in));
    if (in->bad && !JS_IsException(v)) {
        JS_FreeValue(ctx, v);
        return JS_ThrowInternalError(ctx, "a message of the host is not in its format");
    }
    return v;
}

/* ---- what waits for the host ---- */

typedef struct {
    uint32_t id;          /* ascending; 0 where it was taken out */
    bool timer;
    JSValue resolve, reject;
} Waiting;

static Waiting *waiting;
static uint32_t waiting_len, waiting_cap, waiting_live;

static Waiting *wait_add(JSContext *ctx)
{
    if (waiting_len == waiting_cap && waiting_live < waiting_len / 2) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < waiting_len; i++)
            if (waiting[i].id)
                waiting[n++] = waiting[i];
        waiting_len = n;
    }
    if (waiting_len == waiting_cap) {
        uint32_t cap = waiting_cap ? waiting_cap * 2 : 8;
        Waiting *p = realloc(waiting, cap * sizeof(Waiting));
        if (!p) {
            JS_ThrowOutOfMemory(ctx);
            return NULL;
        }
        waiting = p;
        waiting_cap = cap;
    }
    Waiting *w = &waiting[waiting_len++];
    waiting_live++;
    w->id = ++next_id;
    w->timer = false;
    w->resolve = w->reject = JS_UNDEFINED;
    return w;
}

/* Moves the entry out; false when nothing waits under this id. */
static bool wait_take(uint32_t id, Waiting *out)
{
    for (uint32_t i = waiting_len; i-- > 0;) {
        if (waiting[i].id == id && id) {
            *out = waiting[i];
            waiting[i].id = 0;
            waiting_live--;
            if (!waiting_live)
                waiting_len = 0;
            return true;
        }
    }
    return false;
}

/* Throws away the exception that is pending, and gives it back. */
static JSValue caught(JSContext *ctx) { return JS_GetException(ctx); }

static JSValue invoke(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSValue promise, funcs[2];
    Out o = { .max = max_call, .max_depth = 256 };
    int r = w_str(&o, ctx, data[0]) || w_str(&o, ctx, data[1]) || w_var(&o, argc);
    (void)this_val;
    (void)magic;
    for (int i = 0; i < argc && !r; i++)
        r = encode(&o, ctx, argv[i]);
    if (o.len > o.max)
        host_excess(0, o.len);
    promise = JS_NewPromiseCapability(ctx, funcs);
    if (JS_IsException(promise)) {
        out_free(&o);
        return promise;
    }
    if (r) {
        JSValue e = caught(ctx);
        JSValue x = JS_Call(ctx, funcs[1], JS_UNDEFINED, 1, vc(&e));
        JS_FreeValue(ctx, x);
        JS_FreeValue(ctx, e);
        JS_FreeValue(ctx, funcs[0]);
        JS_FreeValue(ctx, funcs[1]);
    } else {
        Waiting *w = wait_add(ctx);
        if (!w) {
            out_free(&o);
            return JS_EXCEPTION;
        }
        w->resolve = funcs[0];
        w->reject = funcs[1];
        host_call(w->id, o.p, o.len);
    }
    out_free(&o);
    return promise;
}

/* ---- namespaces of bindings: names resolve on first use ---- */

typedef struct {
    JSValue name, made;   /* made: methods that were used, an object without prototype */
    const char *methods;  /* separated by newlines, in the start message, which is kept */
    size_t len;
} Space;

static JSClassID space_class;

static void space_finalizer(JSRuntime *r, JSValueConst val)
{
    Space *s = JS_GetOpaque(val, space_class);
    if (s) {
        JS_FreeValueRT(r, s->name);
        JS_FreeValueRT(r, s->made);
        free(s);
    }
}

static void space_mark(JSRuntime *r, JSValueConst val, JS_MarkFunc *mark)
{
    Space *s = JS_GetOpaque(val, space_class);
    if (s)
        JS_MarkValue(r, s->made, mark);
}

static bool space_has(Space *s, const char *name, size_t len)
{
    const char *p = s->methods, *end = p + s->len;
    while (p < end) {
        const char *q = memchr(p, '\n', end - p);
        if (!q)
            q = end;
        if ((size_t)(q - p) == len && !memcmp(p, name, len))
            return true;
        p = q + 1;
    }
    return false;
}

static int space_get(JSContext *ctx, JSPropertyDescriptor *desc, JSValueConst obj, JSAtom prop)
{
    Space *s = JS_GetOpaque(obj, space_class);
    JSValue name, fn;
    const char *text;
    size_t len;
    int r;
    if (!s)
        return 0;
    name = JS_AtomToValue(ctx, prop);
    if (JS_IsException(name))
        return -1;
    if (!JS_IsString(name)) {
        JS_FreeValue(ctx, name);
        return 0;
    }
    text = JS_ToCStringLen(ctx, &len, name);
    if (!text) {
        JS_FreeValue(ctx, name);
        return -1;
    }
    r = space_has(s, text, len);
    if (r && desc) {
        fn = JS_GetProperty(ctx, s->made, prop);
        if (JS_IsUndefined(fn)) {
            JSValueConst data[2] = { s->name, name };
            fn = JS_NewCFunctionData2(ctx, invoke, text, 1, 0, 2, data);
            if (!JS_IsException(fn))
                JS_DefinePropertyValue(ctx, s->made, prop, js_dup(fn), 0);
        }
        if (JS_IsException(fn)) {
            r = -1;
        } else {
            desc->flags = JS_PROP_ENUMERABLE;
            desc->value = fn;
            desc->getter = desc->setter = JS_UNDEFINED;
        }
    }
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, name);
    return r;
}

static int space_names(JSContext *ctx, JSPropertyEnum **tab, uint32_t *len, JSValueConst obj)
{
    Space *s = JS_GetOpaque(obj, space_class);
    const char *p, *end;
    uint32_t n = 0;
    *tab = NULL;
    *len = 0;
    if (!s || !s->len)
        return 0;
    end = s->methods + s->len;
    for (p = s->methods; p < end; p++)
        n += *p == '\n';
    *tab = js_mallocz(ctx, (n + 1) * sizeof(JSPropertyEnum));
    if (!*tab)
        return -1;
    for (p = s->methods; p < end;) {
        const char *q = memchr(p, '\n', end - p);
        if (!q)
            q = end;
        (*tab)[(*len)++].atom = JS_NewAtomLen(ctx, p, q - p);
        p = q + 1;
    }
    return 0;
}

static int space_delete(JSContext *ctx, JSValueConst obj, JSAtom prop)
{
    (void)ctx; (void)obj; (void)prop;
    return 0;
}

static int space_define(JSContext *ctx, JSValueConst obj, JSAtom prop, JSValueConst val, JSValueConst getter,
                        JSValueConst setter, int flags)
{
    (void)obj; (void)prop; (void)val; (void)getter; (void)setter; (void)flags;
    JS_ThrowTypeError(ctx, "bindings cannot be changed");
    return -1;
}

static JSClassExoticMethods space_exotic = {
    .get_own_property = space_get,
    .get_own_property_names = space_names,
    .delete_property = space_delete,
    .define_own_property = space_define,
};

static int bind(JSContext *ctx, In *in)
{
    JSValue obj = JS_NewObjectProtoClass(ctx, JS_NULL, space_class);
    Space *s = calloc(1, sizeof(Space));
    size_t len;
    const char *name;
    JSAtom atom;
    int r;
    if (JS_IsException(obj) || !s)
        return -1;
    name = (const char *)r_bytes(in, &len);
    s->name = JS_NewStringLen(ctx, name, len);
    s->methods = (const char *)r_bytes(in, &s->len);
    s->made = JS_NewObjectProto(ctx, JS_NULL);
    JS_SetOpaque(obj, s);
    JS_PreventExtensions(ctx, obj);
    atom = JS_NewAtomLen(ctx, name, len);
    r = JS_DefinePropertyValue(ctx, ctx->global_obj, atom, obj, JS_PROP_ENUMERABLE);
    JS_FreeAtom(ctx, atom);
    return r < 0 || JS_IsException(s->name) || JS_IsException(s->made) ? -1 : 0;
}

/* ---- modules, given by the caller ---- */

typedef struct {
    const char *name, *text;
    size_t name_len, text_len;
} Source;

static Source *sources;
static uint32_t sources_len;

static Source *find_source(const char *name, size_t len)
{
    for (uint32_t i = 0; i < sources_len; i++)
        if (sources[i].name_len == len && !memcmp(sources[i].name, name, len))
            return &sources[i];
    return NULL;
}

static char *normalize(JSContext *ctx, const char *base, const char *name, void *opaque)
{
    static const char *const ends[] = { "", ".ts", ".js", ".tsx", ".mts", ".mjs", "/index.ts", "/index.js" };
    char *found, *path;
    size_t len;
    (void)opaque;
    path = name[0] == '.' ? js_default_module_normalize_name(ctx, base, name) : js_strdup(ctx, name);
    if (!path)
        return NULL;
    len = strlen(path);
    for (size_t i = 0; i < countof(ends); i++) {
        size_t n = strlen(ends[i]);
        found = js_malloc(ctx, len + n + 1);
        if (!found)
            break;
        memcpy(found, path, len);
        memcpy(found + len, ends[i], n + 1);
        if (find_source(found, len + n)) {
            js_free(ctx, path);
            return found;
        }
        js_free(ctx, found);
    }
    /* `./x.js` may mean `x.ts`, as TypeScript writes it. */
    if (len > 3 && !memcmp(path + len - 3, ".js", 3)) {
        memcpy(path + len - 3, ".ts", 3);
        if (find_source(path, len))
            return path;
        memcpy(path + len - 3, ".js", 3);
    }
    return path;
}

static JSModuleDef *load(JSContext *ctx, const char *name, void *opaque)
{
    Source *s = find_source(name, strlen(name));
    JSValue f;
    JSModuleDef *m;
    char *text;
    (void)opaque;
    if (!s) {
        JS_ThrowPlainError(ctx, "there is no module '%s': code sees only the modules and bindings it is given", name);
        return NULL;
    }
    text = malloc(s->text_len + 1);
    if (!text) {
        JS_ThrowOutOfMemory(ctx);
        return NULL;
    }
    memcpy(text, s->text, s->text_len);
    text[s->text_len] = 0;
    f = JS_Eval(ctx, text, s->text_len, name, JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
    free(text);
    if (JS_IsException(f))
        return NULL;
    m = JS_VALUE_GET_PTR(f);
    JS_FreeValue(ctx, f);
    return m;
}

/* ---- natives of the prelude ---- */

static JSValue n_log(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    int32_t level = 0;
    size_t len;
    const char *s;
    if (JS_ToInt32(ctx, &level, argv[0]))
        return JS_EXCEPTION;
    s = JS_ToCStringLen(ctx, &len, argv[1]);
    if (!s)
        return JS_EXCEPTION;
    host_log(level, s, len);
    JS_FreeCString(ctx, s);
    return JS_UNDEFINED;
}

static JSValue n_timer(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    double ms = 0;
    Waiting *w;
    if (JS_ToFloat64(ctx, &ms, argv[1]))
        return JS_EXCEPTION;
    w = wait_add(ctx);
    if (!w)
        return JS_EXCEPTION;
    w->timer = true;
    w->resolve = js_dup(argv[0]);
    host_timer(w->id, ms);
    return js_uint32(w->id);
}

static JSValue n_cancel(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    uint32_t id = 0;
    Waiting w;
    if (JS_ToUint32(ctx, &id, argv[0]))
        return JS_EXCEPTION;
    for (uint32_t i = 0; i < waiting_len; i++)
        if (waiting[i].id == id && !waiting[i].timer)
            return JS_UNDEFINED;
    if (wait_take(id, &w)) {
        JS_FreeValue(ctx, w.resolve);
        host_cancel(id);
    }
    return JS_UNDEFINED;
}

static JSValue n_clone(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    Out o = { .max = 1u << 30, .max_depth = 4000, .refs = true };
    JSValue v;
    if (encode(&o, ctx, argv[0])) {
        out_free(&o);
        return JS_HasException(ctx) ? JS_EXCEPTION : JS_ThrowOutOfMemory(ctx);
    }
    In in = { .p = o.p, .end = o.p + o.len, .refs = true };
    v = decode(&in, ctx);
    for (uint32_t i = 0; i < in.objects_len; i++)
        JS_FreeValue(ctx, in.objects[i]);
    free(in.objects);
    out_free(&o);
    return v;
}

static JSValue n_utf8(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    size_t len;
    const char *s = JS_ToCStringLen(ctx, &len, argv[0]);
    JSValue v;
    if (!s)
        return JS_EXCEPTION;
    v = JS_NewUint8ArrayCopy(ctx, (const uint8_t *)s, len);
    JS_FreeCString(ctx, s);
    return v;
}

/* The bytes behind an ArrayBuffer or a view. */
static uint8_t *bytes_of(JSContext *ctx, JSValueConst v, size_t *len)
{
    size_t off = 0, size = 0;
    uint8_t *data;
    JSValue buffer;
    if (JS_IsArrayBuffer(v)) {
        data = JS_GetArrayBuffer(ctx, len, v);
        return data ? data : (uint8_t *)"";
    }
    if (JS_GetClassID(v) == JS_CLASS_DATAVIEW) {
        JSTypedArray *t = JS_VALUE_GET_OBJ(v)->u.typed_array;
        buffer = js_dup(JS_MKPTR(JS_TAG_OBJECT, t->buffer));
        off = t->offset;
        *len = t->length;
    } else {
        buffer = JS_GetTypedArrayBuffer(ctx, v, &off, len, NULL);
    }
    if (JS_IsException(buffer))
        return NULL;
    data = JS_GetArrayBuffer(ctx, &size, buffer);
    JS_FreeValue(ctx, buffer);
    if (off > size || *len > size - off)
        *len = 0;
    return data ? data + off : (uint8_t *)"";
}

/* decode(bytes, fatal): WHATWG UTF-8 decoding, with one U+FFFD for each maximal bad part. */
static JSValue n_decode(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    size_t len = 0, i = 0;
    uint8_t *p = bytes_of(ctx, argv[0], &len);
    bool fatal = JS_ToBool(ctx, argv[1]);
    Out o = { .max = SIZE_MAX / 4 };
    JSValue v;
    if (!p)
        return JS_EXCEPTION;
    while (i < len) {
        uint8_t b = p[i], lo = 0x80, hi = 0xbf;
        int need = b < 0x80 ? 0 : b >= 0xc2 && b <= 0xdf ? 1 : b >= 0xe0 && b <= 0xef ? 2 : b >= 0xf0 && b <= 0xf4 ? 3 : -1;
        size_t j = i + 1;
        if (b == 0xe0) lo = 0xa0;
        if (b == 0xed) hi = 0x9f;
        if (b == 0xf0) lo = 0x90;
        if (b == 0xf4) hi = 0x8f;
        for (int k = 0; k < need && need > 0; k++, j++) {
            if (j >= len || p[j] < lo || p[j] > hi) {
                need = -1;
                break;
            }
            lo = 0x80;
            hi = 0xbf;
        }
        if (need < 0) {
            if (fatal) {
                out_free(&o);
                return JS_ThrowTypeError(ctx, "The encoded data was not valid for encoding utf-8");
            }
            if (w_raw(&o, "\xef\xbf\xbd", 3))
                break;
        } else if (w_raw(&o, p + i, j - i)) {
            break;
        }
        i = j;
    }
    v = i < len ? JS_ThrowOutOfMemory(ctx) : JS_NewStringLen(ctx, o.p ? (char *)o.p : "", o.len);
    out_free(&o);
    return v;
}

static JSValue n_digest(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    size_t len = 0;
    int32_t bits = 0;
    uint8_t out[64];
    uint8_t *p = bytes_of(ctx, argv[1], &len);
    if (!p || JS_ToInt32(ctx, &bits, argv[0]))
        return JS_EXCEPTION;
    return JS_NewArrayBufferCopy(ctx, out, sha(bits, p, len, out));
}

/* Fills a typed array from the seed: SHA-256 in counter mode. */
static JSValue n_random(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    size_t len = 0;
    uint8_t *p = bytes_of(ctx, argv[0], &len), block[40], out[32];
    if (!p)
        return JS_EXCEPTION;
    for (size_t i = 0; i < len; i += 32) {
        memcpy(block, seed, 32);
        drawn++;
        memcpy(block + 32, &drawn, 8);
        sha(256, block, 40, out);
        memcpy(p + i, out, len - i < 32 ? len - i : 32);
    }
    return JS_UNDEFINED;
}

/* The class of an object, for what prints values: no code of the guest runs. */
static JSValue n_kind(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    return js_int32(JS_IsObject(argv[0]) ? JS_VALUE_GET_OBJ(argv[0])->class_id : 0);
}

static JSValue n_promise(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
{
    JSValue r = JS_NewArray(ctx);
    JS_SetPropertyUint32(ctx, r, 0, js_int32(JS_PromiseState(ctx, argv[0])));
    JS_SetPropertyUint32(ctx, r, 1, JS_PromiseState(ctx, argv[0]) > 0 ? JS_PromiseResult(ctx, argv[0]) : JS_UNDEFINED);
    return r;
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("log", 2, n_log),       JS_CFUNC_DEF("timer", 2, n_timer),   JS_CFUNC_DEF("cancel", 1, n_cancel),
    JS_CFUNC_DEF("clone", 1, n_clone),   JS_CFUNC_DEF("utf8", 1, n_utf8),     JS_CFUNC_DEF("decode", 2, n_decode),
    JS_CFUNC_DEF("digest", 2, n_digest), JS_CFUNC_DEF("random", 1, n_random), JS_CFUNC_DEF("kind", 1, n_kind),
    JS_CFUNC_DEF("promise", 1, n_promise),
};

/* ---- rejections that nobody handles ---- */

#define UNHANDLED 16
static struct { JSValue promise, reason; } unhandled[UNHANDLED];
static uint32_t unhandled_len;

static void track(JSContext *ctx, JSValueConst promise, JSValueConst reason, bool handled, void *opaque)
{
    (void)opaque;
    if (handled) {
        for (uint32_t i = 0; i < unhandled_len; i++) {
            if (JS_VALUE_GET_PTR(unhandled[i].promise) == JS_VALUE_GET_PTR(promise)) {
                JSValue a = unhandled[i].promise, b = unhandled[i].reason;
                memmove(&unhandled[i], &unhandled[i + 1], (unhandled_len - i - 1) * sizeof(unhandled[0]));
                unhandled_len--;
                JS_FreeValue(ctx, a);
                JS_FreeValue(ctx, b);
                return;
            }
        }
    } else if (unhandled_len < UNHANDLED) {
        unhandled[unhandled_len].promise = js_dup(promise);
        unhandled[unhandled_len++].reason = js_dup(reason);
    }
}

static void report_unhandled(void)
{
    for (uint32_t i = 0; i < unhandled_len; i++) {
        if (JS_VALUE_GET_PTR(unhandled[i].promise) == JS_VALUE_GET_PTR(main_promise))
            continue;
        JSValue r = JS_Call(cx, report_fn, JS_UNDEFINED, 1, vc(&unhandled[i].reason));
        if (JS_IsException(r))
            JS_FreeValue(cx, caught(cx));
        JS_FreeValue(cx, r);
    }
}

/* ---- life of a program ---- */

extern const char prelude[];
extern const unsigned prelude_len;
#include "prelude.inc"

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

/* When the image is made, never in a run. */
EXPORT("sb_boot") void sb_boot(void)
{
    JSClassDef def = { "Namespace", space_finalizer, space_mark, NULL, &space_exotic };
    JSValue fn, native, r;
    rt = JS_NewRuntime();
    must(rt);
    JS_SetMaxStackSize(rt, GUEST_STACK - 32 * 1024);
    JS_SetGCThreshold(rt, 2 << 20);
    cx = JS_NewContext(rt);
    must(cx);
    JS_NewClassID(rt, &space_class);
    must(!JS_NewClass(rt, space_class, &def));
    JS_SetModuleLoaderFunc(rt, normalize, load, NULL);
    JS_SetHostPromiseRejectionTracker(rt, track, NULL);
    native = JS_NewObject(cx);
    JS_SetPropertyFunctionList(cx, native, natives, countof(natives));
    fn = JS_Eval(cx, prelude, prelude_len, "bowline:prelude", JS_EVAL_TYPE_GLOBAL);
    must(!JS_IsException(fn));
    r = JS_Call(cx, fn, JS_UNDEFINED, 1, vc(&native));
    must(!JS_IsException(r));
    run_fn = JS_GetPropertyStr(cx, r, "run");
    report_fn = JS_GetPropertyStr(cx, r, "report");
    JS_FreeValue(cx, r);
    JS_FreeValue(cx, fn);
    JS_FreeValue(cx, native);
    main_promise = JS_UNDEFINED;
    JS_RunGC(rt);
    heap_seal(256 * 1024);
}

EXPORT("sb_alloc") void *sb_alloc(uint32_t len) { return malloc(len ? len : 1); }

static uint32_t finish(bool failed, JSValueConst value)
{
    Out o = { .max = max_output, .max_depth = 256 };
    report_unhandled();
    if (encode(&o, cx, value)) {
        if (o.len > o.max)
            host_excess(1, o.len);
        JSValue e = caught(cx);
        out_free(&o);
        o = (Out){ .max = max_output, .max_depth = 256 };
        failed = true;
        if (encode(&o, cx, e)) {
            JS_FreeValue(cx, caught(cx));
            out_free(&o);
            o = (Out){ .max = max_output, .max_depth = 256 };
            w_u8(&o, T_STRING);
            w_bytes(&o, "an error that cannot be shown", 29);
        }
        JS_FreeValue(cx, e);
    }
    host_done(failed, o.p, o.len);
    out_free(&o);
    return 1;
}

/* 0: waits for the host, 1: done, 2: waits for nothing that can come. */
static uint32_t pump(void)
{
    JSContext *c;
    int r;
    while ((r = JS_ExecutePendingJob(rt, &c)) != 0) {
        if (r < 0)
            JS_FreeValue(cx, caught(cx));
    }
    switch (JS_PromiseState(cx, main_promise)) {
    case JS_PROMISE_PENDING:
        return waiting_live ? 0 : 2;
    case JS_PROMISE_FULFILLED:
    case JS_PROMISE_REJECTED: {
        bool failed = JS_PromiseState(cx, main_promise) == JS_PROMISE_REJECTED;
        JSValue v = JS_PromiseResult(cx, main_promise);
        r = finish(failed, v);
        JS_FreeValue(cx, v);
        return r;
    }
    default:
        __builtin_trap();
    }
}

/* The message stays in memory: names and sources are read from it later. */
EXPORT("sb_start") uint32_t sb_start(const uint8_t *p, uint32_t len)
{
    In in = { .p = p, .end = p + len };
    JSValue args[3];
    uint64_t n, state;
    JSContext *ctx = cx;
    now_ms = r_f64(&in);
    cx->time_origin = js__now_ms();
    must(in.end - in.p >= 32);
    memcpy(seed, in.p, 32);
    in.p += 32;
    memcpy(&state, seed, 8);
    cx->random_state = state ? state : 1;
    max_call = r_var(&in);
    max_output = r_var(&in);
    n = r_var(&in);
    for (uint64_t i = 0; i < n; i++)
        must(!bind(ctx, &in));
    sources_len = r_var(&in);
    sources = calloc(sources_len, sizeof(Source));
    must(sources && sources_len);
    for (uint32_t i = 0; i < sources_len; i++) {
        sources[i].name = (const char *)r_bytes(&in, &sources[i].name_len);
        sources[i].text = (const char *)r_bytes(&in, &sources[i].text_len);
    }
    must(!in.bad);
    char *name = js_strndup(ctx, sources[0].name, sources[0].name_len);
    must(name);
    args[0] = JS_LoadModule(ctx, "", name);
    js_free(ctx, name);
    if (JS_IsException(args[0]))
        return finish(true, caught(ctx));
    args[1] = r_str(&in, ctx);
    args[2] = decode(&in, ctx);
    must(!JS_IsException(args[2]));
    main_promise = JS_Call(ctx, run_fn, JS_UNDEFINED, 3, vc(args));
    for (int i = 0; i < 3; i++)
        JS_FreeValue(ctx, args[i]);
    if (JS_IsException(main_promise))
        return finish(true, caught(ctx));
    return pump();
}

/* One answer: its time, id, kind (0 value, 1 error, 2 timer) and value. */
EXPORT("sb_settle") uint32_t sb_settle(uint8_t *p, uint32_t len)
{
    In in = { .p = p, .end = p + len };
    Waiting w;
    JSValue v, r;
    uint32_t id;
    uint8_t kind;
    now_ms = r_f64(&in);
    id = r_var(&in);
    kind = r_u8(&in);
    must(!in.bad && wait_take(id, &w) && w.timer == (kind == 2));
    if (kind == 2) {
        free(p);
        r = JS_Call(cx, w.resolve, JS_UNDEFINED, 0, NULL);
        JS_FreeValue(cx, w.resolve);
        if (JS_IsException(r)) {
            JSValue e = caught(cx);
            id = finish(true, e);
            JS_FreeValue(cx, e);
            return id;
        }
        JS_FreeValue(cx, r);
        return pump();
    }
    v = decode(&in, cx);
    free(p);
    if (JS_IsException(v)) {
        v = caught(cx);
        kind = 1;
    }
    r = JS_Call(cx, kind == 0 ? w.resolve : w.reject, JS_UNDEFINED, 1, vc(&v));
    if (JS_IsException(r))
        JS_FreeValue(cx, caught(cx));
    JS_FreeValue(cx, r);
    JS_FreeValue(cx, v);
    JS_FreeValue(cx, w.resolve);
    JS_FreeValue(cx, w.reject);
    return pump();
}

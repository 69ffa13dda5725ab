/*
 * Calls from a DLL that stands in for one of Windows' to the emulated Hyper-V host. The protocol is described in
 * agent/hyperv/emulator/shim/doc.go.
 *
 * A DLL defines RPC_SERVICE, the name of its service, and includes this file once. A call puts its arguments into a buffer, calls, and takes the
 * results out of another:
 *
 *     rpc_buffer in = {0}, out = {0};
 *     rpc_put_text(&in, path);
 *     DWORD status = rpc_call("OpenVirtualDisk", &in, &out);
 *     UINT64 handle = rpc_take_u64(&out);     // 0, and out.bad set, when the result is not there
 *     rpc_free(&in); rpc_free(&out);
 *
 * The host is reached at the address in HYPERKEEP_SHIMS (127.0.0.1:PORT), else at the one in the file C:\windows\hyperkeep-shims.txt: a Windows
 * service does not inherit the environment. Link with -lws2_32.
 */
#ifndef HYPERKEEP_RPC_H
#define HYPERKEEP_RPC_H

#include <winsock2.h>
#include <windows.h>
#include <stdlib.h>
#include <string.h>

#define RPC_UNAVAILABLE 1722 /* RPC_S_SERVER_UNAVAILABLE; as an HRESULT 0x800706BA */
#define RPC_MAX_FRAME (64u << 20)

enum { /* VARTYPEs of the wire */
    RPC_EMPTY = 0, RPC_NULL = 1, RPC_I2 = 2, RPC_I4 = 3, RPC_R4 = 4, RPC_R8 = 5, RPC_TEXT = 8, RPC_OBJECT = 9, RPC_BOOL = 11, RPC_VARIANT = 12,
    RPC_I1 = 16, RPC_U1 = 17, RPC_U2 = 18, RPC_U4 = 19, RPC_I8 = 20, RPC_U8 = 21, RPC_ARRAY = 0x2000
};

/* A buffer grows when values are put in, and is read from the front. bad is set when memory ran out or a value was not what was asked for. */
typedef struct { unsigned char *data; size_t size, capacity, at; int bad; } rpc_buffer;

/* A value points into the buffer that it was taken from. */
typedef struct { WORD type; DWORD size; const unsigned char *data; } rpc_value;

static void rpc_free(rpc_buffer *b) { free(b->data); memset(b, 0, sizeof *b); }

static unsigned char *rpc_grow(rpc_buffer *b, size_t more)
{
    if (b->size + more > b->capacity) {
        size_t capacity = b->capacity * 2 > b->size + more ? b->capacity * 2 : b->size + more + 256;
        unsigned char *data = realloc(b->data, capacity);
        if (!data) { b->bad = 1; return NULL; }
        b->data = data; b->capacity = capacity;
    }
    b->size += more;
    return b->data + b->size - more;
}

static void rpc_put(rpc_buffer *b, WORD type, const void *data, DWORD size)
{
    unsigned char *p = rpc_grow(b, 6 + (size_t)size);
    if (!p) return;
    memcpy(p, &type, 2); memcpy(p + 2, &size, 4);
    if (size) memcpy(p + 6, data, size);
}

/* Puts the head of an array of TYPE; its items follow, and rpc_end closes it. Arrays nest. */
static inline size_t rpc_begin(rpc_buffer *b, WORD type) { rpc_put(b, RPC_ARRAY | type, NULL, 0); return b->size; }
static inline void rpc_end(rpc_buffer *b, size_t begin)
{
    DWORD size = (DWORD)(b->size - begin);
    if (!b->bad) memcpy(b->data + begin - 4, &size, 4);
}

static inline void rpc_put_u32(rpc_buffer *b, DWORD v) { rpc_put(b, RPC_U4, &v, 4); }
static inline void rpc_put_u64(rpc_buffer *b, UINT64 v) { rpc_put(b, RPC_U8, &v, 8); }
static inline void rpc_put_object(rpc_buffer *b, UINT64 id) { rpc_put(b, RPC_OBJECT, &id, 8); }
static inline void rpc_put_bool(rpc_buffer *b, int v) { unsigned char c = v != 0; rpc_put(b, RPC_BOOL, &c, 1); }
/* A null pointer is null. */
static inline void rpc_put_text(rpc_buffer *b, const WCHAR *s)
{
    if (s) rpc_put(b, RPC_TEXT, s, (DWORD)(lstrlenW(s) * sizeof *s));
    else rpc_put(b, RPC_NULL, NULL, 0);
}
static void rpc_put_ascii(rpc_buffer *b, const char *s)
{
    DWORD i, n = (DWORD)strlen(s);
    unsigned char *p;
    rpc_put(b, RPC_TEXT, NULL, 0);
    if (b->bad || !(p = rpc_grow(b, 2 * (size_t)n))) return;
    for (i = 0; i < n; i++) { p[2 * i] = (unsigned char)s[i]; p[2 * i + 1] = 0; }
    n *= 2; memcpy(p - 4, &n, 4);
}

/* Takes the next value; 0 at the end. An array's items are taken from a buffer over its data, see rpc_items. */
static int rpc_take(rpc_buffer *b, rpc_value *v)
{
    if (b->bad || b->size - b->at < 6) return 0;
    memcpy(&v->type, b->data + b->at, 2); memcpy(&v->size, b->data + b->at + 2, 4);
    if (v->size > b->size - b->at - 6) { b->bad = 1; return 0; }
    v->data = b->data + b->at + 6;
    b->at += 6 + (size_t)v->size;
    return 1;
}
/* The items of an array, to be taken while the buffer that it came from lives. Never free it. */
static inline rpc_buffer rpc_items(const rpc_value *v) { rpc_buffer b = {(unsigned char *)v->data, v->size, v->size, 0, 0}; return b; }

static void rpc_take_sized(rpc_buffer *b, WORD type, void *out, DWORD size)
{
    rpc_value v;
    memset(out, 0, size);
    if (rpc_take(b, &v) && v.type == type && v.size == size) memcpy(out, v.data, size);
    else b->bad = 1;
}
static inline DWORD rpc_take_u32(rpc_buffer *b) { DWORD v; rpc_take_sized(b, RPC_U4, &v, 4); return v; }
static inline UINT64 rpc_take_u64(rpc_buffer *b) { UINT64 v; rpc_take_sized(b, RPC_U8, &v, 8); return v; }
static inline UINT64 rpc_take_object(rpc_buffer *b) { UINT64 v; rpc_take_sized(b, RPC_OBJECT, &v, 8); return v; }
static inline int rpc_take_bool(rpc_buffer *b) { unsigned char v; rpc_take_sized(b, RPC_BOOL, &v, 1); return v != 0; }
/* Text with an end mark, to be freed by the caller; NULL when there is none. */
static inline WCHAR *rpc_take_text(rpc_buffer *b)
{
    rpc_value v;
    WCHAR *s;
    if (!rpc_take(b, &v) || v.type != RPC_TEXT || !(s = malloc(v.size + sizeof *s))) { b->bad = 1; return NULL; }
    memcpy(s, v.data, v.size); s[v.size / sizeof *s] = 0;
    return s;
}

/* The connections that no call uses now. */
static SRWLOCK rpc_lock = SRWLOCK_INIT;
static SOCKET rpc_idle[64];
static int rpc_idle_count;
static UINT64 rpc_process;

static int rpc_send(SOCKET s, const unsigned char *p, size_t n)
{
    while (n) {
        int sent = send(s, (const char *)p, (int)(n > 1 << 20 ? 1 << 20 : n), 0);
        if (sent <= 0) return 0;
        p += sent; n -= (size_t)sent;
    }
    return 1;
}

static int rpc_receive(SOCKET s, unsigned char *p, size_t n)
{
    while (n) {
        int got = recv(s, (char *)p, (int)(n > 1 << 20 ? 1 << 20 : n), 0);
        if (got <= 0) return 0;
        p += got; n -= (size_t)got;
    }
    return 1;
}

static int rpc_send_frame(SOCKET s, const rpc_buffer *b)
{
    DWORD size = (DWORD)b->size;
    return !b->bad && b->size <= RPC_MAX_FRAME && rpc_send(s, (unsigned char *)&size, 4) && rpc_send(s, b->data, size);
}

static int rpc_receive_frame(SOCKET s, rpc_buffer *b)
{
    DWORD size;
    unsigned char *p;
    if (!rpc_receive(s, (unsigned char *)&size, 4) || size > RPC_MAX_FRAME) return 0;
    return (p = rpc_grow(b, size)) && rpc_receive(s, p, size);
}

/* The port of the host, 0 when nobody has told. */
static u_short rpc_port(void)
{
    char text[64] = "", *colon;
    if (!GetEnvironmentVariableA("HYPERKEEP_SHIMS", text, sizeof text)) {
        DWORD n = 0;
        HANDLE f = CreateFileA("C:\\windows\\hyperkeep-shims.txt", GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
        if (f == INVALID_HANDLE_VALUE) return 0;
        if (!ReadFile(f, text, sizeof text - 1, &n, NULL)) n = 0;
        text[n] = 0;
        CloseHandle(f);
    }
    colon = strrchr(text, ':');
    return colon ? (u_short)atoi(colon + 1) : 0;
}

/* Opens a connection. One for presence carries no calls. */
static SOCKET rpc_open(int presence)
{
    WSADATA data;
    struct sockaddr_in to = {0};
    int on = 1, said;
    rpc_buffer hello = {0};
    SOCKET s;
    u_short port = rpc_port();
    if (!port || WSAStartup(MAKEWORD(2, 2), &data)) return INVALID_SOCKET;
    /* A child that inherited the connection would keep its parent alive in the host's eyes. */
    s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (s == INVALID_SOCKET) return s;
    to.sin_family = AF_INET; to.sin_port = htons(port); to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, (char *)&on, sizeof on);
    rpc_put_ascii(&hello, RPC_SERVICE); rpc_put_u64(&hello, rpc_process); rpc_put_u32(&hello, GetCurrentProcessId());
    rpc_put_bool(&hello, presence);
    said = !connect(s, (struct sockaddr *)&to, sizeof to) && rpc_send_frame(s, &hello);
    rpc_free(&hello);
    if (said) return s;
    closesocket(s);
    return INVALID_SOCKET;
}

/* The connection that shows the host that this process lives, as long as there is one. The host ends it when it goes. */
static SRWLOCK rpc_presence_lock = SRWLOCK_INIT;
static SOCKET rpc_presence = INVALID_SOCKET;

static SOCKET rpc_dial(void)
{
    fd_set ended;
    struct timeval now = {0};
    AcquireSRWLockExclusive(&rpc_presence_lock);
    FD_ZERO(&ended);
    if (rpc_presence != INVALID_SOCKET) {
        FD_SET(rpc_presence, &ended);
        if (select(0, &ended, NULL, NULL, &now)) {
            closesocket(rpc_presence);
            rpc_presence = INVALID_SOCKET;
        }
    }
    if (rpc_presence == INVALID_SOCKET) rpc_presence = rpc_open(1);
    ReleaseSRWLockExclusive(&rpc_presence_lock);
    return rpc_open(0);
}

static SOCKET rpc_connection(void)
{
    SOCKET s = INVALID_SOCKET;
    AcquireSRWLockExclusive(&rpc_lock);
    if (!rpc_process) {
        FILETIME now;
        GetSystemTimeAsFileTime(&now);
        rpc_process = ((UINT64)GetCurrentProcessId() << 40) ^ ((UINT64)now.dwHighDateTime << 32 | now.dwLowDateTime);
    }
    if (rpc_idle_count) s = rpc_idle[--rpc_idle_count];
    ReleaseSRWLockExclusive(&rpc_lock);
    return s != INVALID_SOCKET ? s : rpc_dial();
}

/* Gives a connection back. When one broke, the others did too: the host has gone. */
static void rpc_done(SOCKET s, int whole)
{
    AcquireSRWLockExclusive(&rpc_lock);
    if (whole && rpc_idle_count < (int)(sizeof rpc_idle / sizeof *rpc_idle)) {
        rpc_idle[rpc_idle_count++] = s;
        s = INVALID_SOCKET;
    }
    if (!whole) while (rpc_idle_count) closesocket(rpc_idle[--rpc_idle_count]);
    ReleaseSRWLockExclusive(&rpc_lock);
    if (s != INVALID_SOCKET) closesocket(s);
}

/*
 * Calls a function of the service. Returns what the function returns, RPC_UNAVAILABLE when the host cannot be reached. out has the results. Neither
 * buffer is freed.
 */
static DWORD rpc_call(const char *function, const rpc_buffer *in, rpc_buffer *out)
{
    rpc_buffer request = {0};
    unsigned char *p;
    DWORD status = RPC_UNAVAILABLE;
    int whole;
    SOCKET s = rpc_connection();
    if (s == INVALID_SOCKET) return status;
    rpc_put_ascii(&request, function);
    if (in && in->size && (p = rpc_grow(&request, in->size))) memcpy(p, in->data, in->size);
    if (in && in->bad) request.bad = 1;
    whole = rpc_send_frame(s, &request) && rpc_receive_frame(s, out);
    if (whole) status = rpc_take_u32(out);
    if (out->bad) { whole = 0; status = RPC_UNAVAILABLE; }
    rpc_done(s, whole);
    rpc_free(&request);
    return status;
}

#endif
